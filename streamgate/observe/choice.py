"""Which tracing a gateway gets: by its settings, the standard variables, and what is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamgate.observe.sampling import sampler_of, unwanted
from streamgate.observe.tracing import Tracing, Untraced


def tracing_of(
    environ: Mapping[str, str],
    *,
    sample: float,
    slow: float,
    broken: bool,
    trust_incoming: bool,
    semconv: str,
    log: Any,
) -> Tracing:
    """By the settings and the standard variables. Whatever is missing for it is said once, and nothing is traced."""
    sampler = sampler_of(environ, sample=sample, slow=slow, broken=broken, trust_incoming=trust_incoming, log=log)
    why = unwanted(environ, sampler)
    if why:
        log.info("tracing", exporting=False, why=why)
        return Untraced()
    # OpenTelemetry's SDK takes 0.1 s and 10 MB to import: only whoever exports spans pays for it.
    try:
        from streamgate.observe.export import Pipeline, otlp  # noqa: PLC0415
        from streamgate.observe.traced import Traced  # noqa: PLC0415

        exporter = otlp()
    except ImportError as missing:
        log.warning("tracing", exporting=False, why=NOT_INSTALLED, missing=missing.name)
        return Untraced()
    log.info("tracing", exporting=True, sample=sampler.share, slow=sampler.slow, broken=sampler.broken)
    return Traced(Pipeline(exporter, log=log), sampler, semconv, environ)


NOT_INSTALLED = "an endpoint is set, but the exporter is not installed: pip install 'streamgate[otlp]'"
