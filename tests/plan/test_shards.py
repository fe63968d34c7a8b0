"""Shards that a run needs: the guide's number, the bound, and what of it is identity."""

from typing import Any

import pytest

from nanochat.config.load import compose_run
from nanochat.errors import ConfigError
from nanochat.plan.early import check_sizes
from nanochat.plan.facts import Facts
from nanochat.plan.plan import Plan, make_plan
from nanochat.plan.shards import shards_for_chars, shards_for_tokens, tokenizer_shards

FACTS = Facts(vocab_size=65536, vocab_source="given")


def plan(*overrides: str) -> Plan:
    return make_plan(compose_run(["data=fineweb_edu", *overrides]).config, FACTS)


def rules(made: Plan) -> dict[str, tuple[Any, str]]:
    return {rule.name: (rule.value, rule.rule) for rule in made.rules}


def test_the_formula() -> None:
    """561M parameters * 20 tokens * 4.8 characters / 250M characters a shard (numbers of the original guide)."""
    assert shards_for_tokens(561e6 * 20) == 216
    assert shards_for_tokens(1) == 1 and shards_for_tokens(250e6 / 4.8 + 1) == 2
    assert shards_for_chars(2e9) == 8 and shards_for_chars(2e9 + 1) == 9 and shards_for_chars(1) == 1


def test_a_depth_gives_its_shards() -> None:
    value, rule = rules(plan("model.depth=20"))["training shards"]
    assert value == 216 and "ceil(tokens * 4.8 / 250,000,000)" in rule
    assert plan("model.depth=20").recipe.flat()["data.num_shards"] == 216
    assert plan("model.depth=4").recipe.shards == 15


def test_what_is_asked_for_is_taken_and_what_is_needed_said() -> None:
    assert rules(plan("model.depth=20", "data.num_shards=240"))["training shards"] == (
        240,
        "data.num_shards (one pass needs 216)",
    )
    assert rules(plan("data.num_shards=null"))["training shards"][0] == 1822


def test_auto_is_bounded_by_what_there_is() -> None:
    value, rule = rules(plan("model.depth=20", "data.last_shard=100"))["training shards"]
    assert value == 100 and "216 would be, and there are 100" in rule


def test_more_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"data.num_shards=1823.*has 1,822 training shards.*at most 1822"):
        plan("data.num_shards=1823")
    with pytest.raises(ConfigError, match="data.num_shards=7000.*karpathy/climbmix-400b-shuffle.*at most 6542"):
        check_sizes(compose_run(["stage=tokenizer", "data=climbmix", "data.num_shards=7000"]).config)


def test_the_number_is_identity_and_the_word_is_not() -> None:
    auto, number = plan("model.depth=20"), plan("model.depth=20", "data.num_shards=216")
    assert auto.recipe.hash == number.recipe.hash
    assert auto.recipe.hash != plan("model.depth=20", "data.num_shards=217").recipe.hash


def test_text_takes_all_by_any_word() -> None:
    def recipe(*words: str) -> str:
        return make_plan(compose_run(["data=text", "data.root=/x", *words]).config, FACTS).recipe.hash

    assert recipe("data.num_shards=auto") == recipe("data.num_shards=null") != recipe("data.num_shards=2")


def test_the_tokenizer_by_its_characters() -> None:
    def number(*words: str) -> int | None:
        return tokenizer_shards(compose_run(["stage=tokenizer", "data=fineweb_edu", *words]).config).number

    assert number() == 8
    assert number("tokenizer.max_chars=300000") == 1
    assert number("data.num_shards=450") == 450
    assert tokenizer_shards(compose_run(["stage=tokenizer"]).config).number is None


def test_the_length_cannot_follow_from_shards_that_follow_from_it() -> None:
    free = ["train.target_param_data_ratio=null", "train.num_epochs=2"]
    config = compose_run(["data=fineweb_edu", *free]).config
    with pytest.raises(ConfigError, match="data.num_shards=auto.*train.num_epochs=2.*1 to 1822"):
        check_sizes(config)
    check_sizes(compose_run(["data=fineweb_edu", *free, "data.num_shards=3"]).config)


def test_other_data_have_no_such_row() -> None:
    made = make_plan(compose_run([]).config, FACTS)
    assert "training shards" not in rules(made) and made.recipe.flat()["data.num_shards"] is None
