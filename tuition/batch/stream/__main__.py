"""A process that prepares files, see `worker`."""

from tuition.batch.stream.worker import main

main()
