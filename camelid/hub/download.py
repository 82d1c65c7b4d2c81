"""One file over HTTP, in spite of the network: ranges, retries, and never a byte twice.

Servers cut, stall, ignore ranges, and are wrong about lengths. What was received stays in `name.part`; each new
attempt asks for the rest (RFC 9110, section 14). Only the hash at the end decides.
"""

from __future__ import annotations

import base64
import functools
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from camelid import __version__
from camelid.errors import CamelidError, MissingError, OptionError, ResourceError
from camelid.hub.staging import Report, part_of
from camelid.hub.store import public

TIMEOUT = 30.0  # seconds without a byte before a connection counts as stalled
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before the next attempt, as long as attempts bring nothing
LONGEST_WAIT = 300.0  # seconds; the most that a server's Retry-After is heeded
_CHUNK = 1 << 16
_REPORT_EVERY = 1 << 20  # bytes between two reports
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)

T = TypeVar("T")
Explain = Callable[[int], CamelidError]


class Retry(Exception):  # noqa: N818 - not an error yet
    """An attempt failed in a way that may pass."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class RemoteFile:
    """Where a file can be had, and how a final refusal by its status is explained.

    `version` is the size and tag (`version_of`) that every answer must have, for files whose hash is not known.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    version: tuple[int | None, str | None] | None = None
    explain: Explain | None = None


def download(remote: RemoteFile, target: Path, report: Report) -> None:
    """Bring all bytes into the part of `target`, going on from what is there.

    Raises:
        ResourceError: attempt after attempt brought nothing.
        MissingError, OptionError: the server refuses for good (what `remote.explain` makes of it).
    """
    part = part_of(target)

    def arrived() -> int:
        return part.stat().st_size if part.exists() else 0

    if remote.size is not None and arrived() > remote.size:
        part.unlink()
    whole = f" of {remote.size}" if remote.size is not None else ""
    patiently(
        functools.partial(_attempt, remote, target, report),
        arrived,
        lambda reason: ResourceError(
            f"{target.name}: {reason} at {public(remote.url)}, {arrived()}{whole} bytes are here; "
            f"pull again to go on from there"
        ),
    )


def ask(attempt: Callable[[], T], give_up: Callable[[str], CamelidError]) -> T:
    """Repeat a small request; not for long, since a machine without network should be told so soon."""
    return patiently(attempt, lambda: 0, give_up, tries=3)


def patiently(
    attempt: Callable[[], T],
    arrived: Callable[[], int],
    give_up: Callable[[str], CamelidError],
    tries: int | None = None,
) -> T:
    """Repeat `attempt` while it raises `Retry`, with growing pauses; an attempt that brought bytes starts them anew.

    After `tries` attempts (default: one more than there are pauses) that brought nothing it raises `give_up(reason)`.
    """
    pauses = PAUSES if tries is None else PAUSES[: tries - 1]
    failures, most = 0, arrived()
    while True:
        try:
            return attempt()
        except Retry as problem:
            failures, most = (0, arrived()) if arrived() > most else (failures, most)
            if failures == len(pauses):
                raise give_up(str(problem)) from None
            time.sleep(max(pauses[failures], min(problem.wait or 0.0, LONGEST_WAIT)))
            failures += 1


def open_url(remote: RemoteFile, span: str | None = None) -> http.client.HTTPResponse:
    """Ask for a URL, or a `span` of its bytes such as "5-"; the answer's status is 200 or 206.

    Raises:
        Retry: what may pass: no connection, too many requests, a server's fault, a range that it does not have.
        MissingError, OptionError, ResourceError: what will not.
    """
    url, login = _split_login(remote.url)
    headers = {"User-Agent": f"camelid/{__version__}", "Accept-Encoding": "identity", **login, **remote.headers}
    if span is not None:
        headers["Range"] = f"bytes={span}"
    try:
        answer: http.client.HTTPResponse = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(remote, error) from None
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise ResourceError(
                f"{public(url)}: its certificate is not trusted ({reason.verify_message}); set SSL_CERT_FILE"
            ) from None
        raise Retry(_why(reason if isinstance(reason, Exception) else error)) from None
    except (ValueError, http.client.InvalidURL) as error:
        raise OptionError(f"{public(url)}: not a usable URL ({error})") from None
    except (OSError, http.client.HTTPException) as error:
        raise Retry(_why(error)) from None
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        answer.close()
        raise ResourceError(
            f"{public(url)}: the server compresses the file, which was not asked for; use another mirror"
        )
    return answer


def total_size(answer: http.client.HTTPResponse) -> int | None:
    """Bytes of the whole file, as an answer claims; None if it does not say."""
    if answer.status == 206:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdecimal() else None


def version_of(answer: http.client.HTTPResponse) -> tuple[int | None, str | None]:
    """What tells one version of a file from another: its size, and its ETag or else its date."""
    return total_size(answer), answer.headers.get("ETag") or answer.headers.get("Last-Modified")


def _attempt(remote: RemoteFile, target: Path, report: Report) -> None:
    """One request, and as much of the file as it brings."""
    part = part_of(target)
    if remote.size is None:  # nothing could tell whether what is there is all
        part.unlink(missing_ok=True)
    have = part.stat().st_size if part.exists() else 0
    if remote.size == have:
        part.touch()
        report(target.name, have, remote.size)
        return
    with open_url(remote, f"{have}-" if have else None) as answer:
        if remote.version is not None and version_of(answer) != remote.version:
            part.unlink(missing_ok=True)
            raise Retry("the file on the server has changed")
        _skip(answer, have)
        whole = remote.size if remote.size is not None else total_size(answer)
        with part.open("ab") as out:
            done = _receive(answer, out, have, whole, functools.partial(report, target.name))
    if whole is not None and done < whole:
        raise Retry("the connection was cut")


def _skip(answer: http.client.HTTPResponse, have: int) -> None:
    """Bring the answer to byte `have` of the file; a server that ignores ranges sends it from the beginning."""
    start = 0
    if answer.status == 206:
        first = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if not first.isdecimal() or int(first) > have:
            raise Retry(f"the server sent another range than the one asked for ({answer.headers.get('Content-Range')})")
        start = int(first)
    while start < have:
        got = _read(answer, min(_CHUNK, have - start))
        if not got:
            raise Retry("the connection was cut")
        start += len(got)


def _receive(
    answer: http.client.HTTPResponse,
    out: BinaryIO,
    done: int,
    whole: int | None,
    report: Callable[[int, int | None], None],
) -> int:
    """Append the answer's bytes up to `whole`; returns where the file ends now."""
    reported = done
    report(done, whole)
    while whole is None or done < whole:
        chunk = _read(answer, _CHUNK if whole is None else min(_CHUNK, whole - done))
        if not chunk:
            break
        out.write(chunk)
        done += len(chunk)
        if done - reported >= _REPORT_EVERY or done == whole:
            reported = done
            report(done, whole)
    return done


def _read(answer: http.client.HTTPResponse, n_bytes: int) -> bytes:
    """What is there, up to `n_bytes`: nothing received is lost if the next byte does not come."""
    try:
        return answer.read1(n_bytes)
    except (OSError, http.client.HTTPException) as error:
        raise Retry(_why(error)) from None


def _refusal(remote: RemoteFile, error: urllib.error.HTTPError) -> Exception:
    status = error.code
    moved = urllib.parse.urlsplit(error.url).netloc != urllib.parse.urlsplit(remote.url).netloc.rpartition("@")[2]
    if status in _TRANSIENT or status == 416 or (moved and status in (401, 403)):  # a signed link that has run out
        wait = error.headers.get("Retry-After", "")
        return Retry(f"the server answers {status} ({error.reason})", float(wait) if wait.isdecimal() else None)
    if remote.explain is not None:
        return remote.explain(status)
    if status in (401, 403, 407):
        return MissingError(
            f"{public(remote.url)}: the server requires a login ({status}); put user:password@ in the URL"
        )
    if status in (404, 410):
        return OptionError(f"{public(remote.url)}: no such file there ({status}); check the URL")
    return ResourceError(f"{public(remote.url)}: the server refuses ({status} {error.reason}); try later or a mirror")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no data for {TIMEOUT:g} seconds"
    if isinstance(error, socket.gaierror):
        return "the host cannot be found (no network?)"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, http.client.HTTPException | ConnectionError):
        return "the connection was cut"
    return str(error) or type(error).__name__


def _split_login(url: str) -> tuple[str, dict[str, str]]:
    """user:password@ of a URL as a header (RFC 7617), since urllib takes it for a part of the host."""
    parts = urllib.parse.urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    url = urllib.parse.urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    if not at:
        return url, {}
    return url, {"Authorization": f"Basic {base64.b64encode(urllib.parse.unquote(login).encode()).decode()}"}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows as urllib does, but takes no secret to another host, and does not go from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if old.scheme == "https" and new.scheme != "https":
            raise ResourceError(f"{public(req.full_url)}: redirects to {public(newurl)}, which is not encrypted")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            request.remove_header("Authorization")
        return request


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects, urllib.request.HTTPSHandler(context=_certificates()))


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates; certifi's, which huggingface-hub brings, where Python finds none."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:
        return ssl.create_default_context()
    import certifi

    return ssl.create_default_context(cafile=certifi.where())
