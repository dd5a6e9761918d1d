"""The search space that the authors of AutoSpace published: nine cells for each of eleven layers.

Layer l serves the searchable blocks 2 l + 1 and 2 l + 2 of the 340M network (blocks are counted from the fixed one, 0).
Six cells of each layer were evolved, the last three are the reference cells.

Source: AutoSpace (arXiv 2103.11833), the authors' search_space.config, `autospace.md` section 3.
"""

from __future__ import annotations

from tenfold.layers.cell_gene import REFERENCE_CELLS, Gene

_EVOLVED = (
    "255125/1/01 335125/0/11 515135/0/10 335155/0/01 235135/0/00 355122/0/11",
    "555153/0/00 223123/1/00 232155/0/10 555125/2/00 325152/0/00 515155/0/00",
    "222152/2/11 355152/0/11 352153/1/10 223152/0/01 555155/1/10 252122/2/10",
    "225125/2/10 222125/2/11 515125/2/00 555125/2/00 222155/0/11 515125/0/01",
    "232135/1/01 255125/1/00 552125/2/00 552155/2/00 555112/2/00 555155/2/00",
    "232133/0/10 555122/2/00 232123/0/01 532135/1/01 233155/0/11 522155/2/11",
    "235155/1/00 525125/2/00 555125/2/11 555125/2/00 535152/1/01 515115/2/00",
    "322132/1/00 333123/0/10 552125/1/10 555152/1/11 325152/1/10 232122/1/11",
    "535125/1/10 522122/2/11 233135/0/11 255125/2/00 232135/0/11 555152/2/00",
    "553135/0/00 352132/1/11 555122/2/00 223125/1/00 223122/0/00 312155/0/00",
    "552155/1/00 522135/0/01 255153/0/10 322123/0/00 233125/0/00 223123/1/01",
)

LEARNED_SPACE: tuple[tuple[Gene, ...], ...] = tuple(
    (*map(Gene.parse, layer.split()), *REFERENCE_CELLS) for layer in _EVOLVED
)
"""The cells of each layer."""
