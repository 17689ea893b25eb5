"""The page: what the run folder says, section by section, poured into the template."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tuition.counting import counted
from tuition.evaluate.report.asked import asked
from tuition.evaluate.report.charts import evaluation_rows, length_chart, loss_chart, small_multiples
from tuition.evaluate.report.choice import choice_sentence
from tuition.evaluate.report.comparison import answer_groups, comparison_rows
from tuition.evaluate.report.conditions import condition_rows, forgetting_sentence
from tuition.evaluate.report.data import data_view, example_view
from tuition.evaluate.report.facts import Row, Run, read_run
from tuition.evaluate.report.losses import loss_rows, other_sentences, worst_demonstrations
from tuition.evaluate.report.machine import install_command, machine_facts, settings, train_command
from tuition.evaluate.report.verdict import about, badge, cautions, cleared, detail, tiles, verdict
from tuition.evaluate.report.words import visible
from tuition.files import write_text
from tuition.train.folder import RunFolder

TEMPLATE = "report.html.jinja"


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Raises:
        UserError: the folder does not exist or holds neither a recipe nor a run.
        OSError: the report could not be written.
    """
    run = read_run(run_folder)
    page = environment().get_template(TEMPLATE).render(view(run))
    file = RunFolder(run_folder).report
    write_text(file, page)
    return file


@cache
def environment() -> Environment:
    """Jinja with everything escaped, and a name that the template knows and we do not is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        # what a macro returns is Markup, whose texts have been through here already
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["counted"] = counted
    return environment


def view(run: Run) -> Row:
    """Everything that the template shows, already in words."""
    return {
        "name": str(run.facts.get("name") or run.folder.resolve().name),
        "verdict": verdict(run),
        "badge": badge(run),
        "detail": detail(run),
        "about": about(run),
        "cautions": cautions(run),
        "cleared": cleared(run),
        "tiles": tiles(run),
        "asked": asked(run),
        "losses": loss_rows(run),
        "others": other_sentences(run),
        "demonstrations": worst_demonstrations(run),
        "comparisons": comparison_rows(run),
        "conditions": condition_rows(run),
        "forgetting": forgetting_sentence(run),
        "answers": answer_groups(run),
        "choice": choice_sentence(run),
        "loss": loss_chart(run),
        "multiples": small_multiples(run),
        "evaluations": evaluation_rows(run.held_out),
        "data": data_view(run),
        "lengths": length_chart(run),
        "example": example_view(run.example),
        "proofs": run.proofs,
        "machine": machine_facts(run.facts),
        "settings": settings(run.recipe),
        "versions": settings(run.facts.get("versions")),
        "hashes": settings(run.facts.get("hashes")),
        "command": train_command(run),
        "install": install_command(run.facts),
    }
