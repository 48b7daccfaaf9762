"""The worker's poller, where the system refuses it something."""

from __future__ import annotations

import errno
from unittest.mock import Mock

import pytest

from app.server.worker import Worker


@pytest.mark.parametrize("has_dropped", [True, False])
def test_without_a_file_for_one_more_connection_it_goes_on_as_soon_as_one_is_dropped(
    has_dropped: bool,
) -> None:
    worker = Mock(_drop_oldest=Mock(return_value=has_dropped))
    listener = Mock(accept=Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))

    assert not Worker.accept(worker, listener)

    assert worker.set_accept_enabled.call_args_list == ([] if has_dropped else [((False,),)])
