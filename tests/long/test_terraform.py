"""More plans in a row, and more blocks at once, than the tests of every day run: only `.ci/full` runs this."""

from support.roots import Root, blocks_that_ask_at_once, plans_in_a_row


def test_20_plans_in_a_row_mint_nothing_and_show_no_difference(root: Root) -> None:
    plans_in_a_row(root, 20)


def test_40_identical_blocks_in_one_plan_mint_once(examples: Root) -> None:
    blocks_that_ask_at_once(examples, 40)
