"""A bucket of pictures, on a real S3 server: it passes the contract, and nothing is lost while the bucket is down."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import pytest
from pydantic import SecretStr

from app.config import ConfigError, StorageSettings
from app.errors import NotFound
from app.storage.base import StorageError
from app.storage.bucket import BucketUnusable, Patience, open_bucket
from app.storage.local import LocalStorage
from app.storage.objects import ObjectStorage
from tests.fakes.s3 import Fault, FaultyProxy, S3Server
from tests.storage.contract import NOW, PNG, SECRET, Clock, Kept, StorageContract, content, pieces, put, read

CREDENTIALS = ("AKIDEXAMPLE", "s3cret/of/the/bucket")
# Time enough for a busy machine, and no pauses; short limits only where a bucket is slow.
CALM = Patience(connect=5, stall=5, request=20, retry=5, call=20, pause=0.005)
HASTE = Patience(connect=1, stall=1, request=3, retry=1, call=2, pause=0.005)


def settings(endpoint: str, prefix: str, **more: Any) -> StorageSettings:
    return StorageSettings(
        **{
            "url": f"s3://pictures/{prefix}",
            "endpoint": endpoint,
            "region": "us-east-1",
            "access_key_id": CREDENTIALS[0],
            "secret_access_key": SecretStr(CREDENTIALS[1]),
            "allow_http": True,
            **more,
        }
    )


def objects(
    endpoint: str, prefix: str, spool: Path, clock: Callable[[], float], patience: Patience = CALM, **more: Any
) -> ObjectStorage:
    bucket = open_bucket(settings(endpoint, prefix), patience)
    local = LocalStorage(spool, [SECRET], clock)
    return ObjectStorage(bucket, local, [SECRET], clock, retry_seconds=0.05, **more)


def patience_with(fault: Fault) -> Patience:
    return HASTE if fault.delay else CALM


def keys_in(s3: S3Server, prefix: str) -> set[str]:
    return {name.rpartition("/")[2] for name in s3.names("pictures", f"{prefix}/")}


def keys_on(spool: Path) -> set[str]:
    return {path.name for path in spool.rglob("*") if path.is_file()}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def running(store: ObjectStorage) -> AsyncIterator[None]:
    await store.start()
    try:
        yield
    finally:
        await store.close()


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


class TestObjects(StorageContract):
    @pytest.fixture
    def store(self, s3: S3Server, prefix: str, tmp_path: Path, clock: Clock) -> ObjectStorage:
        return objects(s3.url, prefix, tmp_path, clock)

    @pytest.fixture
    def kept(self, s3: S3Server, prefix: str, tmp_path: Path) -> Kept:
        def keys() -> set[str]:
            assert keys_on(tmp_path) == set()  # the spool is for bad times only
            assert s3.uploads("pictures") == 0
            return keys_in(s3, prefix)

        return keys


class TestObjectsWithoutABucket(StorageContract):
    """Every test with a bucket that is down: the spool does it all."""

    @pytest.fixture
    def store(self, faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock) -> ObjectStorage:
        faulty.fault = Fault(refuse=True, methods="PUT")
        return objects(faulty.url, prefix, tmp_path, clock)

    @pytest.fixture
    def kept(self, s3: S3Server, prefix: str, tmp_path: Path) -> Kept:
        return lambda: keys_on(tmp_path) | keys_in(s3, prefix)

    def test_there_is_room_and_no_trouble(self, store: ObjectStorage) -> None:  # type: ignore[override]
        put(store)
        assert store.trouble() is not None


# ---- what the bucket is told


def test_a_bucket_is_laid_out_like_a_directory(s3: S3Server, prefix: str, tmp_path: Path, clock: Clock) -> None:
    store = objects(s3.url, prefix, tmp_path, clock)
    key, lasting = put(store), put(store, expires_at=None)
    assert set(s3.names("pictures", prefix)) == {
        f"{prefix}/{int(NOW + 3600) // 3600:x}/{key}",
        f"{prefix}/keep-{lasting[8:10]}/{lasting}",
    }


@pytest.mark.parametrize("size", [5000, 12 << 20])
def test_an_object_is_harmless_and_cacheable_by_itself(
    s3: S3Server, prefix: str, tmp_path: Path, clock: Clock, size: int
) -> None:
    store = objects(s3.url, prefix, tmp_path, clock)
    key = put(store, pieces(bytes(size)))
    [name] = s3.names("pictures", prefix)
    headers = s3.http.head(f"/pictures/{name}").headers
    assert headers["content-type"] == "image/png"
    assert headers["content-disposition"] == f'inline; filename="{key}"'
    assert headers["cache-control"] == "private, max-age=3600, immutable"


def test_a_sweep_lists_only_what_is_due(faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock) -> None:
    store = objects(faulty.url, prefix, tmp_path, clock)
    for hours in (-30, 5, 6, 7):
        put(store, expires_at=NOW + hours * 3600)
    faulty.asked.clear()
    assert asyncio.run(store.delete_expired(NOW)) == 1
    assert [line.split()[0] for line in faulty.asked] == ["GET", "GET", "POST"]  # folders, one folder, delete


def test_many_expired_pictures_go_in_few_requests(
    faulty: FaultyProxy, s3: S3Server, prefix: str, tmp_path: Path, clock: Clock
) -> None:
    store = objects(faulty.url, prefix, tmp_path, clock)
    hour = int(NOW) // 3600 - 2
    for n in range(1100):
        key = f"{hour * 3600:08x}{n:032x}.png"
        assert s3.http.put(f"/pictures/{prefix}/{hour:x}/{key}", content=b"x").status_code == 200
    s3.http.put(f"/pictures/{prefix}/{hour:x}/notes.txt", content=b"not ours")
    faulty.asked.clear()
    assert asyncio.run(store.delete_expired(NOW)) == 1100
    assert s3.names("pictures", prefix) == [f"{prefix}/{hour:x}/notes.txt"]
    assert len(faulty.asked) <= 6


# ---- links


def test_a_presigned_link_leads_to_the_bucket(s3: S3Server, prefix: str, tmp_path: Path, clock: Clock) -> None:
    clock.now = time.time()
    store = objects(s3.url, prefix, tmp_path, clock, presigned=True)
    key = put(store, expires_at=clock.now + 600)
    link = asyncio.run(store.link(key, clock.now + 600, "https://here"))
    assert link.startswith(f"{s3.url}/pictures/{prefix}/")
    assert "X-Amz-Expires=600&" in link
    assert CREDENTIALS[1] not in link
    answer = httpx2.get(link, headers={"range": "bytes=1-3"}, trust_env=False)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (206, PNG[1:4], "image/png")


def test_a_presigned_link_bears_the_signature_that_s3_wants(tmp_path: Path, clock: Clock) -> None:
    """The tests' server checks none, so it is made again here, by AWS's rules (Signature Version 4, query string)."""
    bucket = open_bucket(settings("http://127.0.0.1:9", "x"))
    link, _, signature = asyncio.run(bucket.sign("a/b.png", 60)).partition("&X-Amz-Signature=")
    parts = urlsplit(link)
    asked = dict(part.split("=") for part in parts.query.split("&"))
    stamp, scope = asked["X-Amz-Date"], unquote(asked["X-Amz-Credential"]).partition("/")[2]
    canonical = "\n".join(
        [
            "GET",
            parts.path,
            "&".join(sorted(parts.query.split("&"))),
            f"host:{parts.netloc}",
            "",
            "host",
            "UNSIGNED-PAYLOAD",
        ]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    secret = f"AWS4{CREDENTIALS[1]}".encode()
    for word in (*scope.split("/"), text):
        secret = hmac.digest(secret, word.encode(), "sha256")
    assert secret.hex() == signature


@pytest.mark.parametrize("seconds", [-5, 8 * 86_400])
def test_what_no_bucket_would_sign_is_a_link_of_ours(
    s3: S3Server, prefix: str, tmp_path: Path, clock: Clock, seconds: float
) -> None:
    store = objects(s3.url, prefix, tmp_path, clock, presigned=True)
    key = put(store)
    link = asyncio.run(store.link(key, NOW + seconds, "https://here"))
    assert link == "https://here" + store.sign(key, NOW + seconds)


def test_a_spooled_picture_has_a_link_of_ours(faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock) -> None:
    faulty.fault = Fault(status=500)
    store = objects(faulty.url, prefix, tmp_path, clock, presigned=True)
    key = put(store)
    other_process = objects(faulty.url, prefix, tmp_path, clock, presigned=True)
    for one in (store, other_process):
        assert asyncio.run(one.link(key, NOW + 60, "https://here")).startswith("https://here/files/")


# ---- a bucket in trouble

DOWN = {
    "refuses": Fault(refuse=True),
    "fails": Fault(status=500),
    "is overloaded": Fault(status=503),
    "forbids": Fault(status=403),
    "has no such bucket": Fault(status=404),
    "is slow": Fault(delay=30),
}


@pytest.mark.parametrize("fault", DOWN.values(), ids=DOWN)
@pytest.mark.parametrize("size", [5000, 9 << 20])
def test_a_picture_that_the_bucket_cannot_take_is_kept_and_sent_later(
    s3: S3Server, faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock, fault: Fault, size: int
) -> None:
    async def run() -> None:
        store = objects(faulty.url, prefix, tmp_path, clock, patience_with(fault))
        data = bytes(size)
        async with running(store):
            faulty.fault = fault
            key = await store.put(pieces(data), content_type="image/png", extension="png", expires_at=NOW + 3600)
            assert keys_on(tmp_path) == {key}
            assert await content(store, key) == data
            trouble = store.trouble()
            assert trouble is not None
            assert not any(secret in trouble for secret in (*CREDENTIALS, "://", "\n"))
            faulty.mend()
            await until(lambda: store.trouble() is None and not keys_on(tmp_path))
        assert keys_in(s3, prefix) == {key}
        assert await content(store, key) == data

    asyncio.run(run())


def test_a_bucket_that_hiccups_is_asked_again(
    s3: S3Server, faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock
) -> None:
    store = objects(faulty.url, prefix, tmp_path, clock)
    faulty.fault = Fault(status=503, times=2)
    key = put(store)
    assert keys_in(s3, prefix) == {key}
    faulty.fault = Fault(status=500, times=2)
    assert read(store, key) == PNG
    assert store.trouble() is None


def test_no_more_than_four_attempts_are_made(faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock) -> None:
    store = objects(faulty.url, prefix, tmp_path, clock)
    faulty.fault = Fault(status=500)
    put(store)
    assert len(faulty.asked) <= 4


def test_nobody_waits_for_a_bucket_that_is_known_to_be_down(
    faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock
) -> None:
    store = objects(faulty.url, prefix, tmp_path, clock)
    faulty.fault = Fault(refuse=True)
    keys = {put(store)}
    asked = len(faulty.asked)
    keys |= {put(store), put(store, pieces(bytes(9 << 20)))}
    assert len(faulty.asked) == asked
    assert keys_on(tmp_path) == keys


def test_what_an_ended_process_left_is_sent_by_the_next(
    s3: S3Server, faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock
) -> None:
    async def run() -> None:
        faulty.fault = Fault(refuse=True)
        keys = {
            await objects(faulty.url, prefix, tmp_path, clock).put(
                PNG, content_type="image/png", extension="png", expires_at=NOW + 3600
            )
            for _ in range(3)
        }
        faulty.mend()
        store = objects(faulty.url, prefix, tmp_path, clock)
        async with running(store):
            await until(lambda: not keys_on(tmp_path))
        assert keys_in(s3, prefix) == keys

    asyncio.run(run())


def test_another_process_serves_what_this_one_spooled(
    faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock
) -> None:
    faulty.fault = Fault(refuse=True)
    key = put(objects(faulty.url, prefix, tmp_path, clock))
    other = objects(faulty.url, prefix, tmp_path, clock)
    assert read(other, key) == PNG  # the bucket is down
    faulty.mend()
    assert read(other, key) == PNG  # and now it has not got it


def test_a_spooled_picture_that_is_deleted_is_never_sent(
    s3: S3Server, faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock
) -> None:
    async def run() -> None:
        store = objects(faulty.url, prefix, tmp_path, clock)
        async with running(store):
            faulty.fault = Fault(status=500, methods="PUT")
            key = await store.put(PNG, content_type="image/png", extension="png", expires_at=NOW + 3600)
            await store.delete(key)
            faulty.mend()
            await until(lambda: store.trouble() is None)  # although nothing is left that would try the bucket
        assert keys_on(tmp_path) | keys_in(s3, prefix) == set()

    asyncio.run(run())


def test_a_picture_deleted_while_it_is_sent_does_not_come_back(
    s3: S3Server, faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock
) -> None:
    async def run() -> None:
        store = objects(faulty.url, prefix, tmp_path, clock)
        faulty.fault = Fault(refuse=True, methods="PUT")
        key = await store.put(PNG, content_type="image/png", extension="png", expires_at=NOW + 3600)
        faulty.fault = Fault(delay=0.3, methods="PUT")
        asked = len(faulty.asked)
        async with running(store):
            await until(lambda: len(faulty.asked) > asked)
            await store.delete(key)
            await until(lambda: not store._sending)
        assert keys_on(tmp_path) | keys_in(s3, prefix) == set()

    asyncio.run(run())


def test_an_expired_picture_is_swept_from_the_spool(
    faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock
) -> None:
    store = objects(faulty.url, prefix, tmp_path, clock)
    faulty.fault = Fault(refuse=True, methods="PUT")
    put(store, expires_at=NOW - 90_000)
    assert asyncio.run(store.delete_expired(NOW)) == 1
    assert keys_on(tmp_path) == set()


# ---- reading


def test_an_object_that_was_lost_is_not_found(s3: S3Server, prefix: str, tmp_path: Path, clock: Clock) -> None:
    async def run() -> None:
        store = objects(s3.url, prefix, tmp_path, clock)
        key = await store.put(bytes(9 << 20), content_type="image/png", extension="png", expires_at=None)
        stored = await store.open(key)
        chunks = stored.chunks(0, stored.size)
        await anext(chunks)
        [name] = s3.names("pictures", prefix)
        s3.http.delete(f"/pictures/{name}")
        with pytest.raises(NotFound):
            [chunk async for chunk in chunks]
        with pytest.raises(NotFound):
            await store.open(key)

    asyncio.run(run())


@pytest.mark.parametrize("fault", [Fault(cut=1_000_000), Fault(refuse=True), Fault(status=503), Fault(delay=30)])
def test_a_bucket_that_dies_while_it_is_read_is_an_error_and_no_short_picture(
    faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock, fault: Fault
) -> None:
    async def run() -> None:
        calm = objects(faulty.url, prefix, tmp_path, clock)
        key = await calm.put(bytes(9 << 20), content_type="image/png", extension="png", expires_at=None)
        store = objects(faulty.url, prefix, tmp_path, clock, patience_with(fault))
        stored = await store.open(key)
        chunks = stored.chunks(0, stored.size)
        await anext(chunks)
        faulty.fault = fault
        with pytest.raises(StorageError) as caught:
            [chunk async for chunk in chunks]
        assert not any(secret in str(caught.value) for secret in (*CREDENTIALS, "://", "\n"))

    asyncio.run(run())


def test_a_read_that_breaks_off_once_is_asked_for_again(
    faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock
) -> None:
    store = objects(faulty.url, prefix, tmp_path, clock)
    data = bytes(range(256)) * 30_000
    key = put(store, data)
    faulty.fault = Fault(cut=1_000_000, methods="GET", times=1)
    assert read(store, key) == data


def test_a_slow_bucket_does_not_hold_up_others(faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock) -> None:
    async def run() -> float:
        store = objects(faulty.url, prefix, tmp_path, clock)
        faulty.fault = Fault(delay=1.0)
        putting = asyncio.create_task(store.put(PNG, content_type="image/png", extension="png", expires_at=None))
        longest = 0.0
        while not putting.done():
            began = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - began)
        await putting
        return longest

    assert asyncio.run(run()) < 0.5  # a tenth of it on a machine with nothing else to do


# ---- settings


def test_the_library_is_imported_only_where_there_is_a_bucket() -> None:
    code = "import sys, app.main; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"url": "ftp://pictures"}, "storage.url"),
        ({"url": "s3://"}, "storage.url"),
        ({"url": "pictures"}, "storage.url"),
        ({"url": "s3://AKID:secret@pictures"}, "storage.url"),
        ({"allow_http": False}, "storage.endpoint"),
        ({"url": "az://pictures"}, "storage.region"),
        ({"url": "gs://pictures", "region": ""}, "storage.access_key_id"),
        ({"url": "az://pictures", "region": "", "secret_access_key": SecretStr("no base64 !")}, "storage"),
    ],
)
def test_settings_that_contradict_themselves_are_named(more: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_bucket(settings("http://127.0.0.1:9", "x", **more))
    assert str(caught.value).startswith(f"{named}: ")
    assert "\n" not in str(caught.value)


def test_azure_signs_urls_too() -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    bucket = open_bucket(
        StorageSettings(url="az://pictures/p", access_key_id="account", secret_access_key=SecretStr(key))
    )
    link = asyncio.run(bucket.sign("a/b.png", 60))
    assert link.startswith("https://account.blob.core.windows.net/pictures/p/a/b.png?")
    assert bucket.label == "az://pictures/p"


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault(status=403), BucketUnusable, "403 TestFault"),
        (Fault(status=404), BucketUnusable, "404 TestFault"),
        (Fault(status=301), BucketUnusable, "region"),
        (Fault(status=403, methods="POST DELETE"), BucketUnusable, "403 TestFault"),
        (Fault(status=503), StorageError, "503 TestFault"),
        (Fault(refuse=True), StorageError, "list"),
        (Fault(delay=30), StorageError, "no answer in time"),
    ],
)
def test_a_bucket_that_cannot_work_is_told_from_one_that_is_down(
    faulty: FaultyProxy, prefix: str, tmp_path: Path, clock: Clock, fault: Fault, kind: type[StorageError], said: str
) -> None:
    store = objects(faulty.url, prefix, tmp_path, clock, patience_with(fault))
    faulty.fault = fault
    with pytest.raises(StorageError, match=said) as caught:
        asyncio.run(store.check())
    assert type(caught.value) is kind


def test_a_check_leaves_nothing(s3: S3Server, prefix: str, tmp_path: Path, clock: Clock) -> None:
    asyncio.run(objects(s3.url, prefix, tmp_path, clock, presigned=True).check())
    assert keys_in(s3, prefix) | keys_on(tmp_path) == set()


def test_a_bucket_that_is_not_there_is_said(s3: S3Server, tmp_path: Path, clock: Clock) -> None:
    bucket = open_bucket(settings(s3.url, "", url="s3://nowhere"), CALM)
    store = ObjectStorage(bucket, LocalStorage(tmp_path, [SECRET], clock), [SECRET], clock)
    with pytest.raises(BucketUnusable, match="NoSuchBucket"):
        asyncio.run(store.check())
