"""Download one large file: resumed where it broke off, checked before it takes its name."""

import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from lsc.errors import UserError
from lsc.files import disk_error, md5_of

_CHUNK = 1 << 20


def download(url: str, path: Path, *, md5: str, attempts: int = 5, pause: float = 2.0) -> None:
    """Fetch ``url`` to ``path``, with a progress bar.

    What has come so far is kept as ``<path>.part``; a broken connection is resumed from there, at once for some
    ``attempts`` and by calling again later.

    Raises:
        UserError: no connection, a full disk, or a wrong checksum, which names both sums; ``path`` then stays as it is.
    """
    part = path.with_name(path.name + ".part")
    for attempt in range(attempts):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if _fetch_rest(url, part):
                break
        except urllib.error.HTTPError as error:
            raise UserError(
                f"{url} answers {error.code} {error.reason}: get the file by hand, see --archive"
            ) from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            if attempt + 1 == attempts:
                reason = getattr(error, "reason", error)
                raise UserError(f"cannot fetch {url} ({reason}): try again, or see --archive") from error
        except OSError as error:
            raise disk_error(part, error) from error
        if attempt + 1 < attempts:
            time.sleep(pause)
    else:
        raise UserError(f"{url} broke off at {part.stat().st_size} bytes: run the same command again to resume")
    found = md5_of(part)
    if found != md5:
        part.unlink()
        raise UserError(f"{url} has md5 {found} instead of {md5}: the download was thrown away, fetch it again")
    os.replace(part, path)


def _fetch_rest(url: str, part: Path) -> bool:
    """Append what is missing to ``part``; True when all that the server announced is there."""
    have = part.stat().st_size if part.exists() else 0
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url} should be an http or https address")
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing lies beyond what is here: either all has come, or the part belongs to a longer file.
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(have):
            return True
        part.unlink()
        return False
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        start = have if resumed else 0
        expected = start + int(length) if length is not None else None
        bar = tqdm(desc=part.stem, total=expected, initial=start, unit="B", unit_scale=True, unit_divisor=1024)
        with part.open("ab" if resumed else "wb") as stream, bar:
            while chunk := response.read(_CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
    return expected is None or part.stat().st_size >= expected
