"""What the contracts cost: the README's tables are what is measured, and a wrong one is seen."""

from contracts import gas


def test_the_tables_are_what_is_measured() -> None:
    """Goal: figures that a reader can trust. Method: measure again."""
    assert gas.differences(gas.parts()[1], gas.tables()) == []


def test_a_wrong_table_is_seen() -> None:
    """Goal: the comparison can fail. Method: a figure 2 % off, a missing line, another word."""
    written = gas.parts()[1]
    first = written.splitlines()[2]
    number = round(gas.figures(first)[0])
    other = first.replace(f"{number:,}", f"{number * 102 // 100:,}")
    assert gas.differences(written.replace(first, other), written) == [f"{other!r} should be {first!r}"]
    assert gas.differences(written.partition("\n")[2], written) != []
    assert gas.differences(written.replace("deposit", "withdrawal"), written) != []


def test_an_anchor_costs_the_same_for_any_batch() -> None:
    """Goal: at most 100,000 gas, however many charges. Method: the rows of the second table."""
    rows = [gas.figures(line) for line in gas.parts()[1].partition("charges in a batch")[2].splitlines()[2:]]
    assert [round(row[0]) for row in rows] == list(gas.CHARGES)
    anchors = [row[1] for row in rows]
    assert max(anchors) <= 100_000
    assert max(anchors) - min(anchors) <= 500, "only the bytes of the count differ"
