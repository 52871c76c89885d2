"""The settings of a training run, as one frozen dataclass."""

from dataclasses import asdict, dataclass, field, fields

from emotion.augmentation import NONE, Augmentation


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of a run; a run is reproducible from these, the data and the versions in its record.

    Attributes:
        name: folder of the run.
        architecture, architecture_options: key of `architectures.BUILDERS` and its keyword arguments.
        epochs, batch_size: as usual.
        optimizer: "adam" or "sgd" (Nesterov momentum 0.9).
        learning_rate: the peak.
        schedule: "constant", "cosine" (to zero), or "step" (x 0.1 at half and at three quarters).
        warmup_epochs: linear rise to the peak.
        weight_decay: decoupled, per step times the learning rate, on kernels only.
        label_smoothing: 0..1.
        ema: momentum of the weights' exponential moving average, which is then what is evaluated and kept; 0 is off.
        augmentation: see `Augmentation`.
        mixup: alpha of the Beta distribution (Zhang et al. 2018); 0 is off.
        label_share: 1 fits the labels; below 1 blends in FER+ votes (Training rows only).
        clean: whether `cleaning.clean` is applied to Training.
        balance: "none", "class_weight" or "sampling".
        patience: epochs without a better PublicTest accuracy before stopping; 0 never stops early.
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
    schedule: str = "constant"
    warmup_epochs: int = 0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    augmentation: Augmentation = NONE
    mixup: float = 0.0
    label_share: float = 1.0
    clean: bool = True
    balance: str = "none"
    patience: int = 0
    precision: str = "float32"
    seed: int = 0
    note: str = ""

    def __post_init__(self):
        if isinstance(self.augmentation, dict):
            object.__setattr__(self, "augmentation", Augmentation(**self.augmentation))
        choices = {"optimizer": ("adam", "sgd"), "schedule": ("constant", "cosine", "step"),
                   "balance": ("none", "class_weight", "sampling"), "precision": ("float32", "mixed_bfloat16")}  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}. Received: {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive. Received: {getattr(self, name)}")
        for name in ("ema", "label_smoothing", "label_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1. Received: {getattr(self, name)}")

        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs. Received: {self.warmup_epochs} of {self.epochs}")

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
