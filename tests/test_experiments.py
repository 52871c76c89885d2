import json

import pytest

from emotion import experiments
from emotion.architectures import build
from emotion.training import RUNS

ALL = [config for runs in experiments.LISTS.values() for config in runs]


def test_every_run_has_a_name_of_its_own_and_says_why_it_exists():
    assert len({config.name for config in ALL}) == len(ALL)
    assert all(config.note for config in ALL)


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_every_network_of_the_list_can_be_built_and_pooled_maps_be_made(config):
    model = build(config.architecture, config.architecture_options)
    assert model.get_layer("activation_map").output.shape[1:3] == (6, 6)


def test_recorded_runs_were_made_with_the_settings_of_the_list():
    recorded = [config for config in ALL if (RUNS / config.name / "record.json").is_file()]
    assert recorded
    for config in recorded:
        record = json.loads((RUNS / config.name / "record.json").read_text())
        assert record["config"] == json.loads(json.dumps(config.to_dict())), config.name


def test_a_name_that_is_not_in_the_list_is_refused(capsys):
    with pytest.raises(SystemExit):
        experiments.main(["--list", "small", "--only", "vgg_huge"])
    assert "vgg_huge" in capsys.readouterr().err
