from __future__ import annotations

from fractions import Fraction

import pytest

from grao.rewards.final_answer import final_answer, read_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        ("-12", -12),
        ("−3", -3),
        ("+3", 3),
        ("1,200", 1200),
        ("1{,}200", 1200),
        ("1,234,567.25", Fraction(123456725, 100)),
        (".5", Fraction(1, 2)),
        ("3.", 3),
        ("1e3", 1000),
        ("2.5e-1", Fraction(1, 4)),
        ("3/4", Fraction(3, 4)),
        ("1 1/2", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-3\frac{1}{2}", Fraction(-7, 2)),
        ("$18", 18),
        (r"\$18.50", Fraction(37, 2)),
        ("-$5", -5),
        ("$-5", -5),
        ("5€", 5),
        ("$5$", 5),
        (r"\(7\)", 7),
        ("**7**", 7),
        ("72 clips", 72),
        ("5km", 5),
        (r"10\text{ cm}", 10),
        ("60 miles/hour", 60),
        ("2 million", 2_000_000),
        ("$1.5 billion", 1_500_000_000),
        ("20 °C", 20),
    ],
)
def test_numbers_are_read_exactly(text, number):
    """Oracle: the number each text states, as a fraction."""
    assert read_number(text).value == number


@pytest.mark.parametrize(
    "text",
    ["", "x", "5x", "2 pi", "1,20", "1/0", "5 hours 30 minutes", "3 + 4", "--5", "(1,2)", "9" * 5000, "seven", "2^3"],
)
def test_what_is_no_plain_number_is_none(text):
    """Oracle: by hand: letters that are factors, sums, lists, and more digits than Python converts."""
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("0.5", r"50\%", True),
        ("50%", "50 %", True),
        ("50%", "0.5%", False),
        ("50%", "5", False),
        ("1/3", "0.3333", False),
        ("0.75", "3/4", True),
        ("3.0", "3", True),
    ],
)
def test_equality(one, other, equal):
    """Oracle: by hand, in both directions."""
    assert read_number(one).equals(read_number(other)) is equal
    assert read_number(other).equals(read_number(one)) is equal


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 + 4 = 7\n#### 7", "7"),
        ("#### 1\nwait\n#### 2 apples\nmore", "2 apples"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}, 9 times", r"\frac{1}{2}"),
        ("#### 1 \n so \\boxed{2}", "2"),
        ("\\boxed{1}\n#### 2", "2"),
        (r"#### \boxed{7}", "7"),
        (r"\boxed{3", None),  # never closed: the text was cut
        ("#### ", None),
        ("The answer is 42. I checked 3 times.", "42"),
        ("The answer is:\n42", "42"),
        ("The final answer is 3 + 4 = 7", "7"),
        ("Answer: $1,200 in 5 years", "$1,200"),
        ("He has $10 and $20.", "$20"),
        ("so 10-3 = 7.", "7"),
        ("it fell to -3", "-3"),
        (r"so the area is $2\pi$.", r"$2\pi$"),
        ("Half of it is 1 1/2", "1 1/2"),
        ("H2O", None),
        ("none", None),
        ("", None),
    ],
)
def test_where_the_final_answer_is_found(text, answer):
    """Oracle: by hand, by the order in the file's docstring."""
    assert final_answer(text) == answer
