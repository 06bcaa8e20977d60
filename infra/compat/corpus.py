"""What the flows ingest, and which of it answers what."""

from __future__ import annotations

#: Name → text.
DOCUMENTS = {
    "lighthouse": "The lighthouse keeper trims the lantern every evening, before the fog rolls in from the sea and "
    "ships lose sight of the rocks.",
    "bread": "Knead the sourdough for ten minutes, let it rest overnight in a cool place, and bake the loaf in a very "
    "hot oven with steam.",
    "taxes": "The annual tax return must be filed with the revenue office by the end of July; late filing costs a "
    "penalty for every month.",
    "volcano": "Magma rises through cracks in the crust and erupts as lava, ash and gas; the cone of the volcano grows "
    "with every eruption.",
    "chess": "In the Sicilian Defence Black answers the king's pawn with the pawn of the bishop, and fights for the "
    "centre from the flank.",
    "vaccine": "A vaccine shows the immune system a harmless part of a virus, so that antibodies are ready when the "
    "virus itself arrives.",
}
#: Query → the document that answers it.
QUESTIONS = {
    "Who looks after the lamp on the coast?": "lighthouse",
    "How do I bake a loaf with sourdough?": "bread",
    "When is the tax return due?": "taxes",
    "What comes out of a volcano during an eruption?": "volcano",
    "opening moves for Black in chess": "chess",
    "How does immunisation prepare the body for a virus?": "vaccine",
}
