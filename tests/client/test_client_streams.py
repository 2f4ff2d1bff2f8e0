"""Server-sent events from their lines."""

import pytest

from kubevo_client import Event, ServiceError
from kubevo_client.streams import parse


def events(text, last_id=None):
    return list(parse(text.splitlines(keepends=True), last_id))


def test_an_event_has_its_kind_its_document_and_the_place_to_go_on_from():
    assert events('id: 3\nevent: generation\ndata: {"repeat": 0}\n\n') == [
        Event("generation", {"repeat": 0}, "3")
    ]


def test_an_id_holds_until_another_is_given():
    found = events("id: 1\ndata: {}\n\ndata: {}\n\nid: 2\ndata: {}\n\n")
    assert [event.id for event in found] == ["1", "1", "2"]


def test_the_place_that_one_came_with_is_kept():
    assert events("data: {}\n\n", "7.8")[0].id == "7.8"


def test_comments_and_reconnect_times_are_no_events():
    assert events(": open\nretry: 2000\n\n: ping\n\n") == []


def test_the_lines_of_one_event_are_joined():
    assert events('data: {"a":\ndata: 1}\n\n')[0].document == {"a": 1}


def test_an_event_that_was_cut_off_is_dropped():
    assert events("data: {}\n") == []


def test_carriage_returns_end_lines_too():
    assert events("event: status\r\ndata: {}\r\n\r\n") == [Event("status", {}, None)]


@pytest.mark.parametrize("text", ["[1]", "no json", "1"])
def test_data_that_is_no_json_object_is_refused(text):
    with pytest.raises(ServiceError, match="expected an event with a JSON object"):
        events(f"data: {text}\n\n")
