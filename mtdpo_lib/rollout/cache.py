"""A key-value cache with room for the columns to come: a step writes its own column and copies no other."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns; all is copied once in so many steps


class RoomyLayer(DynamicLayer):
    """As transformers' layer, whose keys and values [rows, heads, columns, D] are views of larger tensors here.

    What replaces them is copied into new room by the next step.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._rooms: dict[str, tuple[Tensor, Tensor]] = {}  # by name the larger tensor, and the view of it

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new columns; gives those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._appended("keys", self.keys, key_states)
        self.values = self._appended("values", self.values, value_states)
        return self.keys, self.values

    def keep(self, free: list[int], moved: list[int], rows: int, unused: int) -> None:
        """Keep the first `rows` rows, after those at `moved` took the places `free`, and not the first `unused` columns."""
        for name, (room, view) in self._rooms.items():
            columns = view.shape[-2]
            room[free, :, unused:columns] = view[moved, :, unused:]
            room = room[:rows, :, unused:]
            view = room[..., : columns - unused, :]
            self._rooms[name] = room, view
            setattr(self, name, view)

    def _appended(self, name: str, held: Tensor | None, new: Tensor) -> Tensor:
        before = 0 if held is None or not held.numel() else held.shape[-2]
        after = before + new.shape[-2]
        room, view = self._rooms.get(name, (new, new))
        if view is not held or after > room.shape[-2]:
            room = self._room(name, new, after + ROOM)
            if held is not None and before:
                room[..., :before, :] = held
        room[..., before:after, :] = new
        self._rooms[name] = room, room[..., :after, :]
        return self._rooms[name][1]

    def _room(self, name: str, new: Tensor, columns: int) -> Tensor:
        return new.new_empty(*new.shape[:-2], columns, new.shape[-1])


class LeanLayer(RoomyLayer):
    """The same, with keys that lie in memory with their columns last, as `LeanStep` multiplies them."""

    def _room(self, name: str, new: Tensor, columns: int) -> Tensor:
        if name == "values":
            return super()._room(name, new, columns)
        return new.new_empty(*new.shape[:-2], new.shape[-1], columns).transpose(-1, -2)


def roomy_cache(kind: type[RoomyLayer] = RoomyLayer) -> Cache:
    """An empty cache for any model whose layers see all columns."""
    return Cache(layer_class_to_replicate=kind)
