"""``lsc data``: list, fetch, check, index, try out and look at data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsc.cli.settings import changed
from lsc.data import DATASETS, open_dataset, parse_options
from lsc.errors import UserError, in_one_line, warn
from lsc.files import make_folder, refuse_unwritable

if TYPE_CHECKING:
    from lsc.data.file_index import FileIndex

app = typer.Typer(help="List, fetch, check, index, try out and look at data sets.", no_args_is_help=True)

Options = Annotated[
    list[str] | None, typer.Option("--set", help="Option of the data set, e.g. image_size=64; repeatable.")
]
Root = Annotated[Path, typer.Option(help="Folder of the data set.")]


@app.command("list")
def list_datasets() -> None:
    """List the data sets with their options and defaults, as a study's `data:` takes them."""
    for name, options in DATASETS.items():
        print(f"{name}: {' '.join((options.__doc__ or '').split())}")
        for key, field in options.model_fields.items():
            if key != "name":
                default = "required" if field.is_required() else field.get_default(call_default_factory=True)
                print(f"    {key}: {default}".ljust(40) + f"  {field.description}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Data set: cinic10.")],
    root: Root = Path("data/cinic10"),
    archive: Annotated[
        Path | None, typer.Option(help="Archive that you already have, or the folder that was in it.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Another place to fetch the archive from.")] = None,
    md5: Annotated[str | None, typer.Option(help="Checksum of an archive other than the published one.")] = None,
) -> None:
    """Fetch a data set, check it and pack it to one file. Interrupted, it resumes when it is called again."""
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    if name == "imagenet":
        raise UserError("imagenet needs an account at image-net.org: see `lsc data check imagenet` for what goes where")
    if name != "cinic10":
        raise UserError(f"{name} needs no download")
    from lsc.data import cinic10

    print(cinic10.fetch_cinic10(root, archive=archive, url=url or cinic10.URL, md5=md5 or cinic10.MD5))


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Data set: cinic10, imagenet, folder or glyphs.")],
    root: Annotated[Path | None, typer.Option(help="Folder of the data set; glyphs has none.")] = None,
    decode: Annotated[bool, typer.Option(help="Also decode every image, and name those that are broken.")] = False,
    leave_out: Annotated[
        Path | None,
        typer.Option(help="Also decode, and list the broken ones in this file, as option leave_out takes it."),
    ] = None,
    options: Options = None,
) -> None:
    """Check that a data set is complete; the first thing missing is named, with what to do about it.

    Of glyphs: its fonts with their licences, how many characters and classes there are, and which look alike.
    """
    if leave_out is not None:
        refuse_unwritable(leave_out, "--leave-out")
    if name == "glyphs":
        _account_of_glyphs(options)
        return
    if root is None:
        raise UserError(f"--root: give the folder of {name}")
    if name == "cinic10":
        dataset = open_dataset("cinic10", root=str(root))
        for split in dataset.splits:
            print(f"{split}: {dataset.size(split)} images, {dataset.num_classes} classes")
        return
    index = _listed(name, root, options, checked=True)
    for split, files in index.files.items():
        print(f"{split}: {len(files)} images, {len(set(index.labels[split].tolist()))} classes")
    for note in index.notes:
        print(f"note: {in_one_line(note)}")
    if decode or leave_out is not None:
        from lsc.data.image_folder import broken_images
        from lsc.data.leaving_out import write_left_out

        broken = []
        for image, fault in broken_images(root, index):
            broken.append((image, fault))
            print(in_one_line(fault))
        if leave_out is not None:
            write_left_out(leave_out, broken)
            print(f"{leave_out}: {len(broken)} images of {sum(map(len, index.files.values()))} do not decode")
        elif broken:
            raise UserError(
                f"{root} has {len(broken)} broken images: replace the files named above, or list them with --leave-out FILE "
                "for option leave_out"
            )
        else:
            print("every image decodes")


@app.command()
def index(
    name: Annotated[str, typer.Argument(help="Data set: imagenet or folder.")],
    root: Root,
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    options: Options = None,
) -> None:
    """Freeze the sorted list of files, so that class ids and instance ids never change."""
    from lsc.data.file_index import save_index

    refuse_unwritable(out)
    listed = _listed(name, root, options, checked=False)
    for note in listed.notes:
        warn(note)
    save_index(listed, out)
    counts = ", ".join(f"{len(files)} {split}" for split, files in listed.files.items())
    print(f"{out}: {len(listed.class_names)} classes, {counts}, sha256 {listed.fingerprint}")


@app.command()
def tree(
    name: Annotated[str, typer.Argument(help="Layout: cinic10 or imagenet.")],
    root: Root,
    classes: Annotated[int, typer.Option(min=2, help="Classes of imagenet (cinic10 has its ten).")] = 10,
    per_class: Annotated[int, typer.Option(min=1, help="Training images of a class.")] = 6,
    archive: Annotated[Path | None, typer.Option(help="Also pack it as a .tar.gz.")] = None,
    archives: Annotated[
        Path | None, typer.Option(help="Of imagenet: also pack it into this folder, as image-net.org gives it away.")
    ] = None,
) -> None:
    """Write a small folder of fractals in the layout of a large data set, to try a training without the data.

    List the tree of imagenet by `lsc data index`; `lsc data check imagenet` refuses it, since it has too few classes.
    """
    from lsc.data import trees

    if archive is not None:
        refuse_unwritable(archive, "--archive")
    make_folder(root, "--root")
    if name == "cinic10":
        trees.write_cinic10_tree(root, per_class=per_class)
    elif name == "imagenet":
        trees.write_imagenet_tree(root, num_classes=classes, train_per_class=per_class)
    else:
        raise UserError(f"there is no small tree of {name!r}; there is cinic10 and imagenet")
    if archives is not None:
        if name != "imagenet":
            raise UserError(f"--archives: {name} is given away as one archive; use --archive")
        make_folder(archives, "--archives")
        trees.write_imagenet_archives(archives, root)
        print(archives)
    if archive is not None:
        from lsc.files import md5_of

        trees.write_archive(root, archive)
        print(f"{archive}: md5 {md5_of(archive)}")


@app.command()
def render(
    name: Annotated[str, typer.Argument(help="Data set.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    classes: Annotated[int, typer.Option(min=1, help="Rows: one class each.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 8,
    split: Annotated[str, typer.Option(help="Split to show.")] = "train",
    options: Options = None,
    apart: Annotated[
        Path | None, typer.Option(help="Also write each image as a PNG file into this folder, named by its class.")
    ] = None,
) -> None:
    """Write a sample sheet: a row of images for each class, with gaps where a class has fewer."""
    from lsc.data.sheets import write_pictures, write_sheet

    refuse_unwritable(out)
    dataset = open_dataset(name, **changed({}, options))
    if apart is not None:
        make_folder(apart, "--apart")
    write_sheet(dataset, split, out, classes=classes, images=images)
    print(out)
    if apart is not None:
        for path in write_pictures(dataset, split, apart, classes=classes, images=images):
            print(path)


def _account_of_glyphs(options: list[str] | None) -> None:
    from lsc.data.glyphs import Glyphs
    from lsc.data.glyphs_account import account

    dataset = open_dataset("glyphs", **changed({}, options))
    assert isinstance(dataset, Glyphs)
    for line in account(dataset):
        print(line)


def _listed(name: str, root: Path, options: list[str] | None, checked: bool) -> "FileIndex":
    """The files of a set that consists of files."""
    from lsc.data.image_folder import FileOptions
    from lsc.data.imagenet import check_imagenet

    if not issubclass(DATASETS[name], FileOptions):
        raise UserError(f"data set {name!r} does not consist of image files; imagenet and folder do")
    if name == "imagenet" and checked:
        return check_imagenet(root)
    chosen = parse_options(name, **changed({}, options) | {"root": str(root)})
    assert isinstance(chosen, FileOptions)
    return chosen.list_files()
