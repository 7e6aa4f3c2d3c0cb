//! Identities in a world whose links are encrypted: who is at the other end of a link, and signatures
//! that nobody else makes. Each process that is one of ours has an identity, which goes with its disk.

use std::sync::Arc;

use rumormill::proto::identity::Identity;
use rumormill::proto::message::{Addr, Role, Welcome};
use rumormill::proto::signature::{SIGNATURE, Signature, Signer, Statement};
use rumormill::proto::time::Time;
use sha2::{Digest, Sha256};

use super::node::{Node, NodeId};
use super::world::World;

/// Signs for one identity. Real keys would be slower and show no more: a script signs nothing, so
/// it is enough that signatures of different identities differ.
#[derive(Debug)]
struct Pen(Identity);

fn signature(who: &Identity, statement: &Statement) -> Signature {
    let mut bytes = [0; SIGNATURE];
    for (half, mark) in bytes.chunks_mut(SIGNATURE / 2).zip([b"1", b"2"]) {
        half.copy_from_slice(
            &Sha256::new()
                .chain_update(mark)
                .chain_update(who.0)
                .chain_update(statement.0)
                .finalize(),
        );
    }
    Signature::from_bytes(&bytes)
}

impl Signer for Pen {
    fn identity(&self) -> Identity {
        self.0
    }

    fn sign(&self, statement: &Statement) -> Signature {
        signature(&self.0, statement)
    }

    fn has_signed(&self, who: &Identity, statement: &Statement, signed: &Signature) -> bool {
        signature(who, statement) == *signed
    }
}

fn identity_of(node: &Node) -> Identity {
    let words = format!("{} {}", node.addr, node.disks_lost);
    Identity(Sha256::digest(words).into())
}

impl World {
    /// Who a node is; none where links are plain.
    pub fn identity(&self, id: NodeId) -> Option<Identity> {
        self.keyed.then(|| identity_of(&self.nodes[id]))
    }

    /// A node gets another disk, and with it another identity.
    pub(super) fn another_disk(&mut self, id: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[id];
        node.disks_lost += 1;
        node.disk_lost_at = Some(now);
    }

    /// Whether a node has lost, since that time, the identity that it had then.
    pub fn is_somebody_else_since(&self, addr: &Addr, then: Time) -> bool {
        let node = self.places.get(addr).map(|id| &self.nodes[*id]);
        self.keyed && node.and_then(|node| node.disk_lost_at).is_some_and(|at| at >= then)
    }

    /// A seed that has reached another one writes down who that is.
    pub(super) fn meet(&mut self, id: NodeId, welcome: &Welcome) {
        if let (Role::Seed, Some(identity), true) =
            (welcome.role, welcome.identity, self.nodes[id].is_seed())
        {
            let met = self.met.entry(id).or_default();
            if !met.contains(&(welcome.from, identity)) {
                met.push((welcome.from, identity));
            }
        }
    }

    /// Signs for a node; none where links are plain.
    pub fn signer(&self, id: NodeId) -> Option<Arc<dyn Signer>> {
        let pen = Pen(self.identity(id)?);
        Some(Arc::new(pen))
    }
}
