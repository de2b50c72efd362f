"""Cases for Einstein summation."""

from __future__ import annotations

from .values import case, weight

ALL = (0, 1, 2, 3)

for equation, *shapes in [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("kj", (2, 3)),  # the implicit result is in the order of the alphabet
    ("ijk->kij", (2, 3, 4)),
    ("ij->", (2, 3)),
    ("ijk->ki", (2, 3, 4)),
    ("i,j->ij", (3,), (2,)),
    ("i,->i", (3,), ()),
    ("ij,kl->ijkl", (2, 3), (3, 4)),
    ("ij,k->jk", (2, 3), (4,)),  # i stands in one operand alone
    ("ij,ij,ij->j", (2, 3), (2, 3), (2, 3)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("bn,anm,bm->ba", (2, 5), (3, 5, 4), (2, 4)),
    ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("i j , j k -> i k", (2, 3), (3, 4)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("iij->ji", (3, 3, 2)),
    ("iij,ij->i", (3, 3, 4), (3, 4)),
    ("iii->i", (3, 3, 3)),
    ("ijij->ji", (2, 3, 2, 3)),
    ("ii,ii->i", (3, 3), (3, 3)),
    ("...ii->...i", (2, 3, 3)),
    ("...ij,...jk->...ik", (5, 1, 2, 3), (5, 4, 3, 4)),
    ("...ij,...jk->...ik", (5, 1, 2, 3), (1, 4, 3, 4)),
    ("...ij,...jk", (5, 2, 3), (5, 3, 4)),
    ("a...b,b...->a...", (2, 5, 3), (3, 5)),
    ("...i,i->...", (2, 3, 4), (4,)),
    ("...,...->...", (2, 3), (2, 3)),
    ("ij,jk->ik", (2, 3), (1, 4)),  # labels of length 1 are broadcast
    ("ij,jk->ik", (2, 1), (3, 4)),
    ("ij,ij->i", (2, 1), (2, 5)),
    ("Tij,j,i->Tij", (2, 3, 4), (4,), (3,)),
]:
    operands = [weight(*s) for s in shapes]
    case("Einsum", *operands, equation=equation, wrt=range(len(shapes)), dynamic=ALL)
case("Einsum", weight(2, 3), weight(3, 4), equation="ij,jk->ik", wrt=(0, 1), opset=13)
case("Einsum", weight(2, 3), weight(3, 4), equation="ij,jk->ik", wrt=(0, 1), opset=26)
