"""The settings of a training run, as one frozen dataclass."""

import json
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise

from emotion.augmentation import NONE, Augmentation
from emotion.distillation import Distillation


@dataclass(frozen=True)
class Stage:
    """A part of a run in which only the head and the body's last layers train (see `emotion.transfer.freeze_body`).

    Attributes:
        start: its first epoch, from 0; it lasts until the next stage starts or the run ends.
        unfrozen: how many of the body's last layers train; 0 is none, -1 all. With 0 the head learns from features of the
            pictures and their mirror images, computed once: other augmentation waits for later stages, and an epoch has twice as
            many rows.
        learning_rate: the peak in this stage.
        norms: whether the batch normalisation among those layers trains too and counts its statistics anew.
    """

    start: int
    unfrozen: int
    learning_rate: float
    norms: bool = False


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of a run; a run is reproducible from these, the data and the versions in its record.

    Attributes:
        name: folder of the run.
        architecture, architecture_options: key of `architectures.BUILDERS` and its keyword arguments.
        epochs, batch_size: as usual.
        optimizer: "adam" or "sgd" (Nesterov momentum 0.9).
        learning_rate: the peak; stages have their own.
        stages: of transfer learning, in order; empty trains the whole network, batch normalisation included, from the first epoch
            on. Each stage has a new optimizer and goes once through warm-up and schedule.
        schedule: "constant", "cosine" (to zero), or "step" (x 0.1 at half and at three quarters).
        warmup_epochs: linear rise to the peak.
        weight_decay: decoupled, per step times the learning rate, on kernels only.
        label_smoothing: 0..1.
        ema: momentum of the weights' exponential moving average, which is then what is evaluated and kept; 0 is off.
        recalibrate: after each epoch the network that is evaluated and kept has its batch normalisation's statistics from so many
            unchanged pictures (`emotion.recalibration`); 0 keeps those of the augmented ones that it was fitted on.
        augmentation: see `Augmentation`.
        framed: share of a picture's showings, 0..1, in which it is framed as the page frames a face (`emotion.framing`).
        mixup: alpha of the Beta distribution (Zhang et al. 2018); 0 is off.
        label_share: 1 fits the labels; below 1 blends in FER+ votes (Training rows only), or opinions.
        opinions: which of `emotion.opinions` are blended in instead of the votes as they are; empty is none.
        vote_head: weight of the loss of a second head, which learns FER+ votes (Training rows only) from the same features and is
            no part of what is saved (`emotion.vote_head`); 0 is off.
        sharpness: rho of sharpness-aware minimisation (`emotion.sharpness`); 0 is off.
        clean: whether `cleaning.clean` is applied to Training.
        refit: whether PublicTest is fitted as well, by its labels alone: a last refit, once a run with the same settings has been
            judged on it. No picture is left to choose anything by.
        keep: which epoch's network is kept: the "best" one on PublicTest or the "last".
        balance: "none", "class_weight" or "sampling".
        distillation: see `Distillation`; without teachers it does nothing.
        patience: epochs without a better PublicTest accuracy before stopping, counted in the last stage; 0 never stops early.
        precision: Keras policy for the arithmetic, "float32" or "mixed_bfloat16". Weights are always kept in float32.
        seed: of initial weights, shuffling, augmentation and dropout.
        note: why this run exists, one sentence for the reader of the record.
    """

    name: str
    architecture: str = "custom_cnn"
    architecture_options: dict = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    stages: list[Stage] = field(default_factory=list)
    schedule: str = "constant"
    warmup_epochs: int = 0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    recalibrate: int = 0
    augmentation: Augmentation = NONE
    framed: float = 0.0
    mixup: float = 0.0
    label_share: float = 1.0
    opinions: str = ""
    vote_head: float = 0.0
    sharpness: float = 0.0
    clean: bool = True
    refit: bool = False
    keep: str = "best"
    balance: str = "none"
    distillation: Distillation = field(default_factory=Distillation)
    patience: int = 0
    precision: str = "float32"
    seed: int = 0
    note: str = ""

    def __post_init__(self):
        if isinstance(self.augmentation, dict):
            object.__setattr__(self, "augmentation", Augmentation(**self.augmentation))
        if isinstance(self.distillation, dict):
            object.__setattr__(self, "distillation", Distillation(**self.distillation))
        object.__setattr__(self, "stages", [Stage(**s) if isinstance(s, dict) else s for s in self.stages])
        choices = {"optimizer": ("adam", "sgd"), "schedule": ("constant", "cosine", "step"),
                   "balance": ("none", "class_weight", "sampling"), "precision": ("float32", "mixed_bfloat16"),
                   "keep": ("best", "last")}  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}. Received: {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive. Received: {getattr(self, name)}")
        for name in ("ema", "label_smoothing", "label_share", "framed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1. Received: {getattr(self, name)}")
        if self.sharpness < 0:
            raise ValueError(f"sharpness must not be negative. Received: {self.sharpness}")
        if self.opinions and (self.label_share == 1 or not self.clean):
            rule = "opinions are of the cleaned pictures and need a label_share below 1"
            raise ValueError(f"{rule}. Received: opinions {self.opinions!r}, label_share {self.label_share}, clean {self.clean}")
        if self.refit and (self.keep == "best" or self.patience or not self.clean or self.distillation.views):
            rule = "a refit has nothing to choose by: keep must be last, patience 0, Training clean and lessons unwritten"
            raise ValueError(f"{rule}. Received: keep {self.keep}, patience {self.patience}, clean {self.clean}")
        if self.recalibrate < 0 or 0 < self.recalibrate < 64:
            raise ValueError(f"recalibrate must be 0 or a number of pictures from 64 on. Received: {self.recalibrate}")
        if self.distillation.views and (self.augmentation != NONE or self.framed or self.mixup or self.balance != "none"):
            rule = "written lessons say what is shown: augmentation, framed, mixup and balance must be left out"
            raise ValueError(f"{rule}. Received: {self.augmentation}, {self.framed}, {self.mixup}, {self.balance!r}")
        self._check_vote_head()
        self._check_stages()
        shortest = min(end - first for first, end, _ in self.spans())
        if not 0 <= self.warmup_epochs < shortest:
            raise ValueError(f"warmup_epochs must be below epochs. Received: {self.warmup_epochs} of {shortest}")

    def _check_vote_head(self) -> None:
        if self.vote_head < 0:
            raise ValueError(f"vote_head must not be negative. Received: {self.vote_head}")
        if self.vote_head and (self.distillation.teachers or any(stage.unfrozen == 0 for stage in self.stages)):
            rule = "a vote head learns with the body and without teachers: these and stages of the head alone must be left out"
            raise ValueError(f"{rule}. Received: {self.distillation}, {self.stages}")

    def _check_stages(self) -> None:
        starts = [stage.start for stage in self.stages]
        if starts and (starts[0] != 0 or any(a >= b for a, b in pairwise(starts))):
            raise ValueError(f"stages must start at epoch 0 and then each later than the last. Received: starts {starts}")
        for stage in self.stages:
            if stage.unfrozen < -1 or not stage.learning_rate > 0:
                raise ValueError(f"a stage must have unfrozen >= -1 and a positive learning_rate. Received: {stage}")

    def spans(self) -> list[tuple[int, int, Stage | None]]:
        """Returns (first epoch, end, stage) of each stage within `epochs`; without stages one span of the whole run."""
        if not self.stages:
            return [(0, self.epochs, None)]
        stages = [stage for stage in self.stages if stage.start < self.epochs]
        ends = [*(stage.start for stage in stages[1:]), self.epochs]
        return [(stage.start, end, stage) for stage, end in zip(stages, ends, strict=True)]

    def differences(self, recorded: dict) -> list[str]:
        """Compares with recorded settings as JSON keeps them; ones that did not exist at that time count as their defaults.

        Returns:
            A sentence part for each setting that differs, such as "epochs (here 3, recorded 5)".
        """
        here, there = (json.loads(json.dumps(c.to_dict())) for c in (self, type(self).from_dict(recorded)))
        return [f"{name} (here {here[name]}, recorded {there[name]})" for name in here if here[name] != there[name]]

    @classmethod
    def from_dict(cls, settings: dict) -> "TrainingConfig":
        """Builds a config from JSON; raises ValueError naming settings that do not exist."""
        unknown = set(settings) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"settings must be fields of TrainingConfig. Unknown: {', '.join(sorted(unknown))}")
        return cls(**settings)

    def to_dict(self) -> dict:
        """Returns the settings as JSON-ready values."""
        return asdict(self)


def parse_settings(items: list[str]) -> dict:
    """Returns the settings of `NAME=VALUE` words; a value that is no JSON is a text."""
    settings = {}
    for item in items:
        name, _, value = item.partition("=")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings
