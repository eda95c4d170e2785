"""What `streamer serve` can be told: one frozen model, read from TOML or YAML."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from streamer.config import Settings, overlay, several
from streamer.errors import ConfigError
from streamer.image.limits import ImageLimits
from streamer.image.store import DAY_S
from streamer.live.settings import StreamSettings, check_name
from streamer.media.ice import ice_server
from streamer.server.prefix import check_names, check_prefix


def _ice(text: str) -> str:
    ice_server(text)
    return text


class ServeSettings(BaseModel):
    """The HTTP server; `configs/serve.toml` shows the same values with a comment each (a test compares)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"  # address to listen on; another than loopback needs keys
    port: Annotated[int, Field(ge=0, le=65535)] = 8080  # 0: any free one
    keys: Path | None = None  # file with one line sha256:HEX per API key
    prefix: Annotated[str, AfterValidator(check_prefix)] = (
        ""  # path below which a web server in front passes us on
    )
    public_url: str | None = None  # how clients reach the server, for url results; None: as each request did
    workers: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: os.cpu_count() or 1)
    waiting: Annotated[int, Field(ge=0, le=10_000)] = 16  # requests that may wait for a worker; more get 429
    body_s: Annotated[float, Field(gt=0, le=3600)] = (
        30.0  # time for a request to arrive, and for its answer to be read
    )
    store: Path | None = None  # folder for url and path results; None: a private one in the temporary folder
    store_s: Annotated[float, Field(gt=0)] = DAY_S  # how long results are kept
    store_bytes: Annotated[int, Field(ge=1)] = 4 << 30  # how much of them
    folders: Annotated[
        tuple[Path, ...], BeforeValidator(several)
    ] = ()  # folders that pictures may be read from by path, besides the store
    tls_cert: Path | None = None  # PEM file with the certificate chain; None: plain HTTP, as behind a proxy
    tls_key: Path | None = None  # PEM file with its key; None: it stands in tls_cert
    streams: dict[str, StreamSettings] | None = (
        None  # live streams by name; None: none, and none can be added
    )
    ice_servers: Annotated[
        tuple[Annotated[str, AfterValidator(_ice)], ...], BeforeValidator(several)
    ] = ()  # stun:HOST:PORT, turn:USER:PASSWORD@HOST:PORT
    viewers: Annotated[int, Field(ge=1, le=10_000)] = 100  # WebRTC viewers of one stream
    limits: ImageLimits = ImageLimits()
    anonymize: Settings = Settings()


def load(path: Path | None, flags: dict[str, Any]) -> ServeSettings:
    """Settings from a TOML or YAML file, if there is one, with `flags` laid on top.

    Raises ConfigError, which holds no value of the file: cameras' addresses hold passwords.
    """
    origin = str(path) if path is not None else "the command line"
    try:
        values = _read(path) if path is not None else {}
        settings = ServeSettings.model_validate(overlay(values, flags))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration ({error.strerror}): {path}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"not a TOML file ({error}): {path}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(step) for step in problem["loc"])
        raise ConfigError(f"{place}: {problem['msg']} (in {origin})") from None
    for name in settings.streams or {}:
        check_name(name)
    check_names(settings.streams or {}, settings.prefix)
    return settings


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8-sig")
    values = _yaml(text, path) if path.suffix.lower() in (".yaml", ".yml") else tomllib.loads(text)
    if not isinstance(values, dict):
        raise ConfigError(f"the configuration is a mapping of keys to values: {path}")
    return values


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigError("YAML needs an extra: pip install streamer-anonymizer[serve]") from error

    class Loader(yaml.SafeLoader):
        """One that takes a key once: of two cameras with the same name the first would be lost without a word."""

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise ConfigError(f"{key.value} stands there twice (line {key.start_mark.line + 1}): {path}")
            seen.add(str(key.value))
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"not a YAML file ({error.problem}, line {line}): {path}") from None
    except RecursionError as error:
        raise ConfigError(f"not a YAML file (nested too deeply): {path}") from error
