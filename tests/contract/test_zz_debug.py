from collections import Counter
import tests.contract.test_ledger_machine as m
SEEN = Counter()
orig = m.Machine.note_states
def note(self, rows):
    b = dict(self.seen); orig(self, rows)
    for k, v in self.seen.items():
        if b.get(k) is not v: SEEN[(str(b.get(k)), str(v))] += 1
m.Machine.note_states = note
import hypothesis
from hypothesis import Phase
real = m.hypothesis_settings
m.hypothesis_settings = lambda **k: real(**{**k, "phases": (Phase.generate,)})
def test_a(settings):
    m.take_steps(m.Lockstep, settings, short=100); print(sorted(SEEN.items()))
    from trivet.ledger.transitions import ALLOWED
    print("missing", {(str(a), str(b)) for a, b in ALLOWED} - set(SEEN))
def test_b(settings):
    SEEN.clear()
    m.take_steps(m.Expiring, settings, short=80); print(sorted(SEEN.items()))
