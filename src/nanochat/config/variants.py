"""Groups whose schema depends on the option chosen: discriminating key -> value -> dataclass."""

from nanochat.config.data import DataConfig, DataKind, LocalConfig, MixtureConfig, ShardsConfig
from nanochat.config.objective import LabelSmoothingConfig, ObjectiveConfig, ObjectiveName, ZLossConfig
from nanochat.config.optim import AdamWConfig, MuonAdamWConfig, MuonModernConfig, OptimConfig, OptimName
from nanochat.config.schedule import (
    ConstantConfig,
    CosineConfig,
    DecayConfig,
    LinearConfig,
    ScheduleConfig,
    ScheduleName,
    StepConfig,
    TrapezoidConfig,
)

VARIANTS: dict[type, tuple[str, dict[str, type]]] = {
    DataConfig: (
        "kind",
        {
            DataKind.embedded: LocalConfig,
            DataKind.text: LocalConfig,
            DataKind.shards: ShardsConfig,
            DataKind.mixture: MixtureConfig,
        },
    ),
    OptimConfig: (
        "name",
        {
            OptimName.muon_adamw: MuonAdamWConfig,
            OptimName.muon_modern: MuonModernConfig,
            OptimName.adamw: AdamWConfig,
        },
    ),
    ScheduleConfig: (
        "name",
        {
            ScheduleName.trapezoid: TrapezoidConfig,
            ScheduleName.cosine: CosineConfig,
            ScheduleName.step: StepConfig,
            ScheduleName.linear: LinearConfig,
            ScheduleName.constant: ConstantConfig,
            ScheduleName.decay: DecayConfig,
        },
    ),
    ObjectiveConfig: (
        "name",
        {
            ObjectiveName.next_token: ObjectiveConfig,
            ObjectiveName.z_loss: ZLossConfig,
            ObjectiveName.label_smoothing: LabelSmoothingConfig,
        },
    ),
}
