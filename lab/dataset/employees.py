"""The default dataset: made-up employees, the same bytes on every machine."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

EMPLOYEES_NAME = "employee_attrition.csv"
EMPLOYEES_COUNT = 74_500
# Bytes and md5 in hex of what `write_employees` writes: changing either makes a new dataset.
EMPLOYEES_SIZE = 9_977_787
EMPLOYEES_MD5 = "54e1eb987b2a9ffe06e8a530ca469b18"

_SEED = 20_240_607
_HEADER = (
    "Employee ID,Age,Gender,Years at Company,Job Role,Monthly Income,Work-Life Balance,"
    "Job Satisfaction,Performance Rating,Number of Promotions,Overtime,Distance from Home,"
    "Education Level,Marital Status,Number of Dependents,Job Level,Company Size,Company Tenure,"
    "Remote Work,Leadership Opportunities,Innovation Opportunities,Company Reputation,"
    "Employee Recognition,Attrition,dataset_type\n"
)

Draw = Callable[[], int]
"""Returns the next byte (0..255) of the seeded stream; every choice below is made from them."""


def write_employees(path: Path) -> None:
    """Write the default dataset to `path`, the same bytes on every machine and Python.

    The write is atomic. A killed writer leaves a hidden `.NAME.<random>.part` beside `path`, which
    nothing reads and which is in no later writer's way.

    Raises OSError when the folder is missing, can't be written or is full.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(_HEADER)
            file.writelines(_generate_rows())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _generate_rows() -> Iterator[str]:
    # getrandbits gives one stream on every Python; shuffle, choices and gauss don't promise it.
    random = Random(_SEED)
    identifiers = sorted(range(1, EMPLOYEES_COUNT + 1), key=lambda _: random.getrandbits(64))
    return (_generate_row(identifier, lambda: random.getrandbits(8)) for identifier in identifiers)


def _lookup_table(shares: str) -> tuple[str, ...]:
    """Return a table of 256 entries: a uniform byte as index draws each value by its percentage."""
    entries: list[str] = []
    for share in shares.split(", "):
        value, percentage = share.rsplit(" ", 1)
        entries += [value] * int(percentage)
    if len(entries) != 100:
        raise ValueError(f"these add up to {len(entries)} %, not 100 %: {shares}")
    return tuple(entries[byte * 100 >> 8] for byte in range(256))


# The typographic apostrophe is the original dataset's; it keeps the file from being plain ASCII.
_BACHELOR, _MASTER = "Bachelor\u2019s Degree", "Master\u2019s Degree"

_GENDER = _lookup_table("Male 55, Female 45")
_ROLE = _lookup_table("Education 21, Media 16, Healthcare 23, Technology 26, Finance 14")
_SATISFACTION = _lookup_table("Low 10, Medium 20, High 50, Very High 20")
_PERFORMANCE = _lookup_table("Low 5, Below Average 15, Average 60, High 20")
_OVERTIME = _lookup_table("No 67, Yes 33")
_SIZE = _lookup_table("Small 20, Medium 50, Large 30")
_REMOTE = _lookup_table("No 81, Yes 19")
_LEADERSHIP = _lookup_table("No 95, Yes 5")
_INNOVATION = _lookup_table("No 84, Yes 16")
_REPUTATION = _lookup_table("Poor 20, Fair 20, Good 50, Excellent 10")
_RECOGNITION = _lookup_table("Low 40, Medium 30, High 25, Very High 5")
_PART = _lookup_table("train 80, test 20")
_BALANCE = {
    "No": _lookup_table("Poor 11, Fair 28, Good 43, Excellent 18"),
    "Yes": _lookup_table("Poor 24, Fair 36, Good 31, Excellent 9"),
}
_DEPENDENTS = {
    "Single": _lookup_table("0 60, 1 22, 2 11, 3 5, 4 2"),
    "Married": _lookup_table("0 16, 1 24, 2 28, 3 18, 4 9, 5 4, 6 1"),
    "Divorced": _lookup_table("0 30, 1 28, 2 23, 3 12, 4 5, 5 2"),
}
# One table per 12 years of age plus service, starting with the youngest newcomer.
_LEVEL = (
    _lookup_table("Entry 88, Mid 12"),
    _lookup_table("Entry 60, Mid 36, Senior 4"),
    _lookup_table("Entry 38, Mid 48, Senior 14"),
    _lookup_table("Entry 28, Mid 48, Senior 24"),
    _lookup_table("Entry 22, Mid 46, Senior 32"),
    _lookup_table("Entry 16, Mid 44, Senior 40"),
    _lookup_table("Entry 10, Mid 42, Senior 48"),
)
# One table per 6 years at the company; the last covers everybody beyond.
_PROMOTIONS = (
    _lookup_table("0 82, 1 16, 2 2"),
    _lookup_table("0 50, 1 31, 2 15, 3 4"),
    _lookup_table("0 38, 1 31, 2 21, 3 8, 4 2"),
    _lookup_table("0 29, 1 28, 2 25, 3 14, 4 4"),
)
# One table per 3 years of age from 18 on; the last covers everybody older. A degree takes years.
_EDUCATION = (
    _lookup_table("High School 80, Associate Degree 20"),
    _lookup_table(f"High School 34, Associate Degree 32, {_BACHELOR} 34"),
    _lookup_table(f"High School 19, Associate Degree 25, {_BACHELOR} 42, {_MASTER} 14"),
    _lookup_table(f"High School 9, Associate Degree 24, {_BACHELOR} 37, {_MASTER} 24, PhD 6"),
)
# One table per 6 years of age from 18 on; the last covers everybody older.
_MARITAL = (
    _lookup_table("Single 84, Married 15, Divorced 1"),
    _lookup_table("Single 50, Married 43, Divorced 7"),
    _lookup_table("Single 28, Married 56, Divorced 16"),
    _lookup_table("Single 20, Married 60, Divorced 20"),
)

# Monthly pay of a newcomer at mid level, in dollars.
_PAY = {"Education": 4500, "Media": 5800, "Healthcare": 7600, "Technology": 8900, "Finance": 8300}
_PAY_PERCENT = {"Entry": 84, "Mid": 100, "Senior": 126}


def _generate_row(identifier: int, draw: Draw) -> str:
    """Return one line of the file. Don't reorder the draws: their order determines the bytes."""
    age = 18 + (42 * draw() >> 8)
    years = 1 + ((age - 17) * draw() >> 8)
    role = _ROLE[draw()]
    level = _LEVEL[(age - 18 + years) // 12][draw()]
    income = _draw_income(role, level, years, draw)
    promotions = _PROMOTIONS[min((years - 1) // 6, 3)][draw()]
    overtime = _OVERTIME[draw()]
    balance = _BALANCE[overtime][draw()]
    satisfaction = _SATISFACTION[draw()]
    distance = 1 + (99 * draw() >> 8)
    education = _EDUCATION[min((age - 18) // 3, 3)][draw()]
    marital = _MARITAL[min((age - 18) // 6, 3)][draw()]
    dependents = _DEPENDENTS[marital][draw()]
    # Months, as in the original dataset, but never fewer than the years at the company: 2..128.
    tenure = years + 1 + ((draw() + draw()) * 86 >> 9)
    remote = _REMOTE[draw()]
    reputation = _REPUTATION[draw()]
    push = (
        _PUSH_OF_OVERTIME[overtime]
        + _PUSH_OF_BALANCE[balance]
        + _PUSH_OF_SATISFACTION[satisfaction]
        + _PUSH_OF_REMOTE[remote]
        + _PUSH_OF_LEVEL[level]
        + _PUSH_OF_MARITAL[marital]
        + _PUSH_OF_REPUTATION[reputation]
        + distance // 2
        - 12 * int(promotions)
    )
    return (
        f"{identifier},{age},{_GENDER[draw()]},{years},{role},{income},{balance},{satisfaction},"
        f"{_PERFORMANCE[draw()]},{promotions},{overtime},{distance},{education},{marital},"
        f"{dependents},{level},{_SIZE[draw()]},{tenure},{remote},{_LEADERSHIP[draw()]},"
        f"{_INNOVATION[draw()]},{reputation},{_RECOGNITION[draw()]},{_draw_attrition(push, draw)},"
        f"{_PART[draw()]}\n"
    )


def _draw_income(role: str, level: str, years: int, draw: Draw) -> int:
    """Return dollars a month: pay by role and level, 8 more per year, bell-shaped ~10 % spread."""
    pay = _PAY[role] * _PAY_PERCENT[level] // 100 + 8 * years
    bell = draw() + draw() + draw() + draw() - 510
    return pay + pay * bell // 1500


# What makes an employee leave (above 0) or stay (below 0), in one made-up unit.
_PUSH_OF_OVERTIME = {"No": 0, "Yes": 28}
_PUSH_OF_BALANCE = {"Poor": 52, "Fair": 30, "Good": 0, "Excellent": -14}
_PUSH_OF_SATISFACTION = {"Low": 40, "Medium": 14, "High": -6, "Very High": -16}
_PUSH_OF_REMOTE = {"No": 0, "Yes": -90}
_PUSH_OF_LEVEL = {"Entry": 50, "Mid": 0, "Senior": -80}
_PUSH_OF_MARITAL = {"Single": 60, "Married": -22, "Divorced": -10}
_PUSH_OF_REPUTATION = {"Poor": 24, "Fair": 12, "Good": -6, "Excellent": -12}
# Chosen so that 47 % leave.
_PATIENCE = 314


def _draw_attrition(push: int, draw: Draw) -> str:
    """Draw Left or Stayed from the push plus noise.

    The noise is about as wide as the push: the columns explain much of who leaves, never all.
    """
    return "Left" if push + draw() + draw() > _PATIENCE else "Stayed"
