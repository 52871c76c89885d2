import json

import pytest

from emotion import experiments
from emotion.architectures import build
from emotion.pretraining import BODIES, PRETRAINED
from emotion.published import BODIES as PUBLISHED
from emotion.training import RUNS
from emotion.transfer import PROJECT, body_checksum

ALL = [config for runs in experiments.LISTS.values() for config in runs]


def test_every_run_has_a_name_of_its_own_and_says_why_it_exists():
    assert len({config.name for config in ALL}) == len(ALL)
    assert all(config.note for config in ALL)


@pytest.mark.parametrize("config", [*experiments.SMALL, *experiments.LARGE], ids=lambda config: config.name)
def test_every_network_of_the_list_can_be_built_and_pooled_maps_be_made(config):
    model = build(config.architecture, config.architecture_options, pretrained=False)
    height, width = model.get_layer("activation_map").output.shape[1:3]
    assert height == width and height in (3, 4, 6, 7)


def test_each_transfer_starts_from_what_the_commands_make_and_has_its_control():
    by_name = {config.name: config for config in experiments.TRANSFER}
    published = [PRETRAINED / name / "body.npz" for name in PUBLISHED]
    for config in experiments.TRANSFER:
        weights = config.architecture_options["weights"]
        pretrained = PRETRAINED / BODIES[config.architecture].name / "body.npz"
        other_run = weights and weights.startswith("saved_models/runs/") and weights.split("/")[2] in by_name
        assert weights is None or other_run or PROJECT / weights in (pretrained, *published)
        # All of it trains at last: its control does so for as long.
        if weights and PROJECT / weights == pretrained and config.stages[-1].unfrozen == -1:
            control = by_name[f"{config.name.rpartition('_')[0]}_scratch"]
            first, end, last = config.spans()[-1]
            assert control.architecture_options == config.architecture_options | {"weights": None} and not control.stages
            assert control.epochs == end - first and control.learning_rate == last.learning_rate and last.norms
            assert {name.split(" (")[0] for name in config.differences(control.to_dict())} <= {
                "name", "note", "architecture_options", "epochs", "stages", "learning_rate"}  # fmt: skip


def test_recorded_runs_were_made_with_the_settings_of_the_list():
    recorded = [config for config in ALL if (RUNS / config.name / "record.json").is_file()]
    assert recorded
    for config in recorded:
        record = json.loads((RUNS / config.name / "record.json").read_text())
        assert config.differences(record["config"]) == [], config.name


def test_a_name_that_is_not_in_the_list_is_refused(capsys):
    with pytest.raises(SystemExit):
        experiments.main(["--list", "small", "--only", "vgg_huge"])
    assert "vgg_huge" in capsys.readouterr().err


def test_bodies_from_which_recorded_runs_started_are_kept_as_they_were():
    records = [json.loads(path.read_text()) for path in RUNS.glob("*/record.json")]
    bodies = [record["body"] for record in records if "body" in record and not record["body"]["file"].endswith("best.keras")]
    assert bodies  # a run's own weights, from which another went on, stay where it was trained
    for body in bodies:
        assert body_checksum(body["file"]) == body["sha256"]
        assert (PROJECT / body["file"]).stat().st_size < 60e6
