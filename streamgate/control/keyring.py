"""Who may ask, made of a configuration: its keys, the file of them, the tokens of an issuer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from urllib.parse import urlsplit

import structlog

from streamgate.admission.jwks import KeySet, from_file, from_url
from streamgate.admission.jwt import JsonWebTokens
from streamgate.admission.keyfile import KeyFile
from streamgate.admission.keys import Keys
from streamgate.control.admitting import Jwt
from streamgate.control.identities import anonymous_of, keys_parser, members_of, static_keys, token_settings
from streamgate.control.settings import Config


def keys_of(config: Config, environ: Mapping[str, str]) -> Keys:
    """Raises OSError or ValueError when the keys file has become unusable since the configuration was checked."""
    if not config.authenticates:
        return Keys(anonymous=anonymous_of(config))
    file = key_file(config, config.keys_file, environ) if config.keys_file is not None else None
    tokens = json_web_tokens(config, config.jwt) if config.jwt is not None else None
    return Keys(static_keys(config), file=file, tokens=tokens)


def key_file(config: Config, path: str, environ: Mapping[str, str]) -> KeyFile:
    def accepted() -> None:
        structlog.get_logger().info("keys_file_read", path=path)

    def refused(problem: str) -> None:
        structlog.get_logger().error("keys_file_refused", path=path, error=problem, keeps="the keys it had")

    return KeyFile(path, keys_parser(config, environ), accepted=accepted, refused=refused)


def json_web_tokens(config: Config, jwt: Jwt) -> JsonWebTokens:
    remote = bool(urlsplit(jwt.jwks).netloc)
    host = urlsplit(jwt.jwks).netloc if remote else jwt.jwks

    def failed(kind: str) -> None:
        structlog.get_logger().warning("jwks_unavailable", jwks=host, error=kind)

    keys = KeySet(partial(from_url if remote else from_file, jwt.jwks), failed=failed)
    return JsonWebTokens(token_settings(jwt), keys, members_of(config))
