"""From a run to the formats that others use, each read back before it is called exported."""
