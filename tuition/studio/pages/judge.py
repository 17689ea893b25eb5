"""Judge: one prompt, two answers, and nothing that says which model wrote which."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import Response

from tuition import api
from tuition.studio.reading import unix_lines
from tuition.studio.web import Here, Me, Studio, redirect, render

router = APIRouter(prefix="/judge")
Id = Annotated[int, Path(ge=1, lt=2**63)]
Rating = Annotated[str, Form(pattern="^[1-7]?$")]
Flags = Annotated[list[str], Form(max_length=20, default_factory=list)]

# key → verdict, and its words
CHOICES = (
    ("1", "left_much", "A is much better"),
    ("2", "left", "A is better"),
    ("3", "tie", "Equally good"),
    ("4", "right", "B is better"),
    ("5", "right_much", "B is much better"),
    ("6", "both_bad", "Both are bad"),
)


@router.get("")
def show(request: Request, studio: Here, me: Me) -> Response:
    """The pair that this person is to judge, or a word about why there is none."""
    return page(request, studio, me.id)


@router.post("/{task}")
def judge(
    studio: Here,
    me: Me,
    task: Id,
    choice: Annotated[str, Form(max_length=20)],
    flags_left: Flags,
    flags_right: Flags,
    rating_left: Rating = "",
    rating_right: Rating = "",
    comment: Annotated[str, Form(max_length=10_000)] = "",
    seconds: Annotated[float, Form(ge=0, allow_inf_nan=False)] = 0.0,
) -> Response:
    """Store the verdict and show the next pair."""
    verdict = api.judging.Verdict(
        choice,
        rating_left=int(rating_left) if rating_left else None,
        rating_right=int(rating_right) if rating_right else None,
        flags_left=flags_left,
        flags_right=flags_right,
        comment=unix_lines(comment),
        seconds=seconds,
    )
    api.judging.judge(studio.store, task, me.id, verdict)
    return redirect(
        "/judge", "Thank you. Here is the next." if api.judging.claim(studio.store, me.id) else ""
    )


@router.post("/{task}/skip")
def skip(studio: Here, me: Me, task: Id, reason: Annotated[str, Form(max_length=2_000)] = "") -> Response:
    """Leave a pair to others, and say why."""
    api.judging.skip(studio.store, task, me.id, unix_lines(reason))
    return redirect("/judge", "Skipped; the reason is read.")


def page(request: Request, studio: Studio, person_id: int) -> Response:
    """The page, with the pair that this person holds or gets now."""
    task = api.judging.claim(studio.store, person_id)
    return render(
        request,
        "judge.html",
        task=task,
        judged_last=None if task else api.judging.last_batch_of(studio.store, person_id),
        standing=api.gold.judging_standing(studio.store, person_id),
        choices=CHOICES,
        flags=api.batches.FLAGS,
        guideline=api.guidelines.current(studio.store),
    )
