//! When a replica takes another name: others know of writes of it that it does not know itself.
//!
//! What must stay true: no dot is used twice. A replica whose disk is an old copy would give its
//! next write a dot that it has used before, so it goes on under a new name (DESIGN.md, section 5).

use super::{Clock, PeerTurn, Replica, Replication, Severity, StoreChange, Write, seal};

/// Names that a replica takes in a minute. One is enough for the truth, because a name that was
/// taken just now is known to nobody else. A liar that names writes under each new name could
/// otherwise make a replica take, write down and log names without end.
const NAMES_A_MINUTE: u32 = 4;

impl Replication {
    /// Renames this replica if others know of more writes of it than it does. Then its disk is an
    /// old copy, and the dot of its next write would be one that it has used before.
    pub(super) fn rename_if_behind(&mut self, turn: &mut PeerTurn<'_>, theirs: &Clock) {
        let mine = self.store.name().clone();
        let sealer = seal::sealer(&mine);
        self.rename_if_known(turn, theirs.get(&mine), theirs.get(&sealer));
    }

    /// Renames this replica if others know of more writes or seals of it than it does.
    fn rename_if_known(&mut self, turn: &mut PeerTurn<'_>, known: u64, seals: u64) {
        let mine = self.store.name().clone();
        let sealer = seal::sealer(&mine);
        let is_known = known <= self.store.count(&mine) && seals <= self.store.count(&sealer);
        if mine.is_empty() || is_known || !self.limits.names.allows(turn.now, NAMES_A_MINUTE) {
            return;
        }
        let base = mine.rsplit_once('@').map_or(&*mine, |(addr, _)| addr);
        let name: Replica = format!("{base}@{}", turn.now.millis()).into();
        let keys = vec![("was", mine.to_string()), ("number", known.to_string())];
        turn.note(Severity::Warn, "replica renamed", keys);
        self.store.rename(name.clone());
        self.durability.persist(turn, vec![StoreChange::Named(name)]);
    }

    /// Whether a clock names more writes or seals of this replica than it has made.
    pub(super) fn is_behind(&self, theirs: &Clock) -> bool {
        let mine = self.store.name();
        let names = [mine.clone(), seal::sealer(mine)];
        names.iter().any(|name| theirs.get(name) > self.store.count(name))
    }

    /// Renames this replica if a write shows that others know more of it: by its dot, or by a life
    /// that it ends.
    pub(super) fn rename_if_ended(&mut self, turn: &mut PeerTurn<'_>, write: &Write) {
        let ended = if write.is_seal() { &write.replaces[..] } else { &[] };
        let (mine, sealer) = (self.store.name(), seal::sealer(self.store.name()));
        let most = |name: &str| {
            let known = ended.iter().chain([&write.dot]).filter(|dot| *dot.replica == *name);
            known.map(|dot| dot.count).max().unwrap_or(0)
        };
        let (known, seals) = (most(mine), most(&sealer));
        self.rename_if_known(turn, known, seals);
    }
}
