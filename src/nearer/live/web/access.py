"""Who may call the service: tokens, as Bearer, or as the password of Basic (what a browser asks for)."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Header
from fastapi.security.utils import get_authorization_scheme_param
from starlette.exceptions import HTTPException


@dataclass(frozen=True, slots=True)
class Tokens:
    """What callers must bring as `Authorization: Bearer …`.

    Without a search token everybody may search; without an admin token, admin endpoints answer 403.
    """

    admin: str | None = field(default=None, repr=False)
    search: str | None = field(default=None, repr=False)


def needs_token(token: str | None, *, open_without: bool) -> Any:
    """A dependency that refuses callers without the token.

    Where none is configured, `open_without` lets everybody in; otherwise nobody.
    """
    return Depends(partial(_required, token, open_without=open_without))


def _required(
    token: str | None, authorization: Annotated[str | None, Header()] = None, *, open_without: bool
) -> None:
    if token is None:
        if not open_without:
            raise HTTPException(
                403, "no admin token is set: start the service with NEARER_ADMIN_TOKEN"
            )
    elif not carries(authorization, token):
        raise HTTPException(401, "a token is needed", {"WWW-Authenticate": "Bearer"})


def carries(authorization: str | None, token: str) -> bool:
    """Whether a header carries the token."""
    scheme, given = get_authorization_scheme_param(authorization)
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    return hmac.compare_digest(given.encode(), token.encode())
