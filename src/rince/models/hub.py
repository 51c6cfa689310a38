"""Exports on the Hugging Face Hub, by huggingface_hub (the extra ``hub``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rince.core.checks import RinceError, import_extra
from rince.models.texts import SENTENCE_FILE


def is_hub_name(given: str | Path) -> bool:
    """Whether nothing here is called so, and a model of the hub could be: ``user/name``."""
    pattern = r"\w[\w.-]*/\w[\w.-]*"
    return bool(re.fullmatch(pattern, str(given))) and not Path(given).exists()


def pull(name: str, files: list[str]) -> Path:
    """Where the files of a model lie, downloaded if they are not yet."""
    try:
        hub = import_extra("huggingface_hub", "hub")
        folder = Path(hub.snapshot_download(name, allow_patterns=[*files, SENTENCE_FILE]))
    except (ImportError, OSError, ValueError) as error:
        raise RinceError(
            f"there is no folder {name}, and it could not be fetched from the hub ({error})"
        ) from error
    if (folder / SENTENCE_FILE).exists():
        raise RinceError(
            f"{name} is a model of texts: read it with sentence_transformers."
            f"SentenceTransformer({name!r})"
        )
    return folder


def check_push(name: str) -> Any:
    """huggingface_hub, if it takes this name; before anything is written."""
    hub = import_extra("huggingface_hub", "hub")
    try:
        import_extra("huggingface_hub.utils", "hub").validate_repo_id(name)
    except ValueError as error:
        raise RinceError(f"{name} is no name on the hub, such as user/name: {error}") from error
    return hub


def push(folder: Path, name: str, without: Sequence[str]) -> str:
    """Upload a folder as a model, and give its address; one that is made for it is private.

    ``without``: patterns of files that stay here, as of ``fnmatch``, from the folder on.
    """
    hub = check_push(name)
    try:
        api = hub.HfApi(library_name="rince")
        made = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, ignore_patterns=list(without))
    except Exception as error:  # without a network they are those of the HTTP library
        raise RinceError(
            f"could not push {folder} to {name} ({error}): log in (`hf auth login`), then `rince "
            f"export {folder} --push {name}`"
        ) from error
    return str(made)
