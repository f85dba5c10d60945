"""Your own images: in a folder for each class, or with their classes in a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from lsc.data.file_index import FileIndex
from lsc.data.image_folder import FileOptions
from lsc.data.scanning import scan, scan_archive
from lsc.data.table import read_table, table_in
from lsc.errors import UserError
from lsc.files import looking_at
from lsc.settings import later


class FolderOptions(FileOptions):
    """Your own images: train/<class>/* and, if there are any, valid/<class>/* and test/<class>/*; or <class>/* alone, all to
    train on; or a table of paths and classes, labels.csv. Folders of classes may lie in an archive, a tar or a zip.
    """

    folders: ClassVar[dict[str, str]] = {"train": "train", "valid": "valid", "test": "test"}
    also: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": ("training",),
        "valid": ("val", "validation"),
        "test": ("testing",),
    }

    name: Literal["folder"] = "folder"
    root: str = Field(
        default="data/images",
        description="folder, or archive, with train/ or with a folder for each class; or a folder with a table",
    )
    labels: str | None = later(
        None,
        as_before=None,
        description="table below root (.csv or .parquet) with the columns path, class and, if there are splits, split; by "
        "default labels.csv or labels.parquet, where there is one and no folder train/",
    )
    channels: Literal[1, 3] = later(3, as_before=3, description="1: grey images, 3: colour")

    def list_files(self, listed: Sequence[str] = ()) -> FileIndex:
        root = Path(self.root)
        with looking_at(root):
            is_archive = root.is_file()
            table = None if is_archive or self.labels is not None else table_in(root)
            by_table = table is not None and not (root / "train").is_dir()
        if is_archive:
            if self.labels is not None:
                raise UserError(f"option labels: a table is read beside files, and {root} is an archive: unpack it")
            return scan_archive(root, self.folders, also=self.also, listed=listed)
        if self.labels is not None:
            return read_table(root / self.labels, root, listed)
        if table is not None and by_table:
            return read_table(table, root, listed)
        index = scan(root, self.folders, required=self.required, also=self.also, listed=listed)
        if table is None:
            return index
        note = f"{table} is not read, since {root} has train/; labels: {table.name} would take it"
        return index._replace(notes=(*index.notes, note))
