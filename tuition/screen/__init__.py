"""What a person sees in the terminal. Progress and warnings go to stderr, results to stdout.

Plain lines where there is no terminal. `watching` shows what goes on, `results` what came of it, `findings` what is
wrong with data, `texts` how words and amounts are written.
"""

from tuition.screen.findings import by_severity, show_findings
from tuition.screen.results import (
    print_json,
    show_check,
    show_doctor,
    show_evaluation,
    show_example,
    show_samples,
    show_several,
)
from tuition.screen.texts import duration, highlighted, printable, size
from tuition.screen.watching import Counter, Opening, Terminal, Watcher

__all__ = [
    "Counter",
    "Opening",
    "Terminal",
    "Watcher",
    "by_severity",
    "duration",
    "highlighted",
    "print_json",
    "printable",
    "show_check",
    "show_doctor",
    "show_evaluation",
    "show_example",
    "show_findings",
    "show_samples",
    "show_several",
    "size",
]
