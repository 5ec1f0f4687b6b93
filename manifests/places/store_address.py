"""Which store a bucket is in: what its URI says, and what the environment says of the rest.

``s3://bucket/key?endpoint_override=host:9000&scheme=http&region=name`` says it in a name; without
options it comes from the variables that Amazon's own tools read (``AWS_ENDPOINT_URL_S3``,
``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_DEFAULT_REGION``). Who reads and who writes go by the
same. Credentials come from the environment alone: URIs are printed, logged and stored.
"""

import os
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlsplit

from manifests.places.place_names import BadAddressError, split_uri
from manifests.text.wording import did_you_mean

ANY_REGION = "us-east-1"
"""What other stores than Amazon's are asked with; signing needs a name."""

_OPTIONS = {"s3": ("endpoint_override", "region", "scheme"), "gs": ("endpoint_override", "scheme")}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreAddress:
    """A bucket and where it is asked for.

    Attributes:
        scheme: ``s3``, ``gs`` or another.
        bucket: Its name.
        endpoint: The store's URL, ``http(s)://host:port``; empty for the provider's own.
        region: The bucket's; None if nothing says.
    """

    scheme: str
    bucket: str
    endpoint: str = ""
    region: str | None = None

    def in_environment(self) -> "StoreAddress":
        """Return the address with what this process's environment says of the rest.

        Raises:
            BadAddressError: The endpoint in the environment is no URL.
        """
        if self.scheme != "s3":
            return self
        named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        endpoint = self.endpoint
        if named and not endpoint:
            endpoint = _url(named, "AWS_ENDPOINT_URL", "correct it in the environment")
        return replace(self, endpoint=endpoint, region=self.region or region)


def store_address(uri: str) -> StoreAddress:
    """Return where the bucket of ``uri`` is, as far as the URI says it.

    Raises:
        BadAddressError: It is no URI, holds credentials, an option that is not known, or an
            endpoint that is no URL.
    """
    parts = split_uri(uri)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    named = options.get("endpoint_override", "")
    if "@" in parts.netloc or "@" in named:
        raise BadAddressError(
            f"a {parts.scheme}:// location holds credentials; take them out of the name and set "
            "them in the environment (AWS_ACCESS_KEY_ID, ...)"
        )
    known = _OPTIONS.get(parts.scheme, tuple(options))
    for name in options:
        if name not in known:
            raise BadAddressError(
                f"{parts.scheme}:// locations have no option {name!r}; {did_you_mean(name, known)}"
            )
    if named and "://" not in named:
        named = f"{options.get('scheme', 'https')}://{named}"
    return StoreAddress(
        scheme=parts.scheme,
        bucket=parts.netloc,
        endpoint=_url(named, "endpoint_override", "correct it") if named else "",
        region=options.get("region") or None,
    )


def _url(text: str, named: str, way_out: str) -> str:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url:  # a store's client would panic
        raise BadAddressError(f"{named} should be http(s)://host:port, got {text!r}; {way_out}")
    return text
