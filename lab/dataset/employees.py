"""The default dataset: made-up employees, the same bytes on every machine."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

EMPLOYEES_NAME = "employee_attrition.csv"
EMPLOYEES_COUNT = 74_500
# What `write_employees` writes, in bytes and as md5 in hex: a change of either is a new dataset.
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
"""Gives the next byte (0..255) of the seeded stream; every choice below is made from such bytes."""


def write_employees(path: Path) -> None:
    """`path` holds the default dataset, the same bytes on every machine and Python.

    It holds them whole or is untouched. A writer that was killed leaves a hidden
    `.NAME.<random>.part` beside it, which nothing reads and no later writer trips over.

    Raises OSError when the folder is missing, can't be written or is full.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(_HEADER)
            file.writelines(_rows())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _rows() -> Iterator[str]:
    # getrandbits gives one stream on every Python; shuffle, choices and gauss don't promise it.
    random = Random(_SEED)
    identifiers = sorted(range(1, EMPLOYEES_COUNT + 1), key=lambda _: random.getrandbits(64))
    return (_row(identifier, lambda: random.getrandbits(8)) for identifier in identifiers)


def _percent(shares: str) -> tuple[str, ...]:
    """A table of 256 entries: a uniform byte as index gives each value with its percentage."""
    entries: list[str] = []
    for share in shares.split(", "):
        value, percentage = share.rsplit(" ", 1)
        entries += [value] * int(percentage)
    if len(entries) != 100:
        raise ValueError(f"these add up to {len(entries)} %, not 100 %: {shares}")
    return tuple(entries[byte * 100 >> 8] for byte in range(256))


# The typographic apostrophe is the original's; it keeps the file from being plain ASCII.
_BACHELOR, _MASTER = "Bachelor\u2019s Degree", "Master\u2019s Degree"

_GENDER = _percent("Male 55, Female 45")
_ROLE = _percent("Education 21, Media 16, Healthcare 23, Technology 26, Finance 14")
_SATISFACTION = _percent("Low 10, Medium 20, High 50, Very High 20")
_PERFORMANCE = _percent("Low 5, Below Average 15, Average 60, High 20")
_OVERTIME = _percent("No 67, Yes 33")
_SIZE = _percent("Small 20, Medium 50, Large 30")
_REMOTE = _percent("No 81, Yes 19")
_LEADERSHIP = _percent("No 95, Yes 5")
_INNOVATION = _percent("No 84, Yes 16")
_REPUTATION = _percent("Poor 20, Fair 20, Good 50, Excellent 10")
_RECOGNITION = _percent("Low 40, Medium 30, High 25, Very High 5")
_PART = _percent("train 80, test 20")
_BALANCE = {
    "No": _percent("Poor 11, Fair 28, Good 43, Excellent 18"),
    "Yes": _percent("Poor 24, Fair 36, Good 31, Excellent 9"),
}
_DEPENDENTS = {
    "Single": _percent("0 60, 1 22, 2 11, 3 5, 4 2"),
    "Married": _percent("0 16, 1 24, 2 28, 3 18, 4 9, 5 4, 6 1"),
    "Divorced": _percent("0 30, 1 28, 2 23, 3 12, 4 5, 5 2"),
}
# One table per 12 years of age and service together, from the youngest newcomer on.
_LEVEL = (
    _percent("Entry 88, Mid 12"),
    _percent("Entry 60, Mid 36, Senior 4"),
    _percent("Entry 38, Mid 48, Senior 14"),
    _percent("Entry 28, Mid 48, Senior 24"),
    _percent("Entry 22, Mid 46, Senior 32"),
    _percent("Entry 16, Mid 44, Senior 40"),
    _percent("Entry 10, Mid 42, Senior 48"),
)
# One table per 6 years at the company, the last for all who are longer there.
_PROMOTIONS = (
    _percent("0 82, 1 16, 2 2"),
    _percent("0 50, 1 31, 2 15, 3 4"),
    _percent("0 38, 1 31, 2 21, 3 8, 4 2"),
    _percent("0 29, 1 28, 2 25, 3 14, 4 4"),
)
# One table per 3 years of age from 18 on, the last for all who are older: a degree takes its years.
_EDUCATION = (
    _percent("High School 80, Associate Degree 20"),
    _percent(f"High School 34, Associate Degree 32, {_BACHELOR} 34"),
    _percent(f"High School 19, Associate Degree 25, {_BACHELOR} 42, {_MASTER} 14"),
    _percent(f"High School 9, Associate Degree 24, {_BACHELOR} 37, {_MASTER} 24, PhD 6"),
)
# One table per 6 years of age from 18 on, the last for all who are older.
_MARITAL = (
    _percent("Single 84, Married 15, Divorced 1"),
    _percent("Single 50, Married 43, Divorced 7"),
    _percent("Single 28, Married 56, Divorced 16"),
    _percent("Single 20, Married 60, Divorced 20"),
)

# Monthly pay of a newcomer at mid level, in dollars.
_PAY = {"Education": 4500, "Media": 5800, "Healthcare": 7600, "Technology": 8900, "Finance": 8300}
_PAY_PERCENT = {"Entry": 84, "Mid": 100, "Senior": 126}


def _row(identifier: int, draw: Draw) -> str:
    """One line of the file. The order of the draws is part of the bytes: don't reorder."""
    age = 18 + (42 * draw() >> 8)
    years = 1 + ((age - 17) * draw() >> 8)
    role = _ROLE[draw()]
    level = _LEVEL[(age - 18 + years) // 12][draw()]
    income = _income(role, level, years, draw)
    promotions = _PROMOTIONS[min((years - 1) // 6, 3)][draw()]
    overtime = _OVERTIME[draw()]
    balance = _BALANCE[overtime][draw()]
    satisfaction = _SATISFACTION[draw()]
    distance = 1 + (99 * draw() >> 8)
    education = _EDUCATION[min((age - 18) // 3, 3)][draw()]
    marital = _MARITAL[min((age - 18) // 6, 3)][draw()]
    dependents = _DEPENDENTS[marital][draw()]
    # The original's months, never fewer than the years at the company: 2..128.
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
        f"{_INNOVATION[draw()]},{reputation},{_RECOGNITION[draw()]},{_attrition(push, draw)},"
        f"{_PART[draw()]}\n"
    )


def _income(role: str, level: str, years: int, draw: Draw) -> int:
    """Dollars a month: the pay of role and level, 8 more per year, spread like a bell by ~10 %."""
    pay = _PAY[role] * _PAY_PERCENT[level] // 100 + 8 * years
    bell = draw() + draw() + draw() + draw() - 510
    return pay + pay * bell // 1500


# What drives a person out (above 0) or keeps one (below 0), in one made-up unit.
_PUSH_OF_OVERTIME = {"No": 0, "Yes": 28}
_PUSH_OF_BALANCE = {"Poor": 52, "Fair": 30, "Good": 0, "Excellent": -14}
_PUSH_OF_SATISFACTION = {"Low": 40, "Medium": 14, "High": -6, "Very High": -16}
_PUSH_OF_REMOTE = {"No": 0, "Yes": -90}
_PUSH_OF_LEVEL = {"Entry": 50, "Mid": 0, "Senior": -80}
_PUSH_OF_MARITAL = {"Single": 60, "Married": -22, "Divorced": -10}
_PUSH_OF_REPUTATION = {"Poor": 24, "Fair": 12, "Good": -6, "Excellent": -12}
# Chosen so that 47 % leave.
_PATIENCE = 314


def _attrition(push: int, draw: Draw) -> str:
    """Noise about as wide as the push: the columns explain much of who leaves, never all."""
    return "Left" if push + draw() + draw() > _PATIENCE else "Stayed"
