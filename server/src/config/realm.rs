//! Where the realm lives.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Most nodes that host the realm, as of any group: more would slow every commit.
const HOSTS_MAX: usize = 7;

/// The nodes that host the realm, of whichever worlds. Alike on every node of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealmConfig {
    /// Their numbers.
    pub nodes: Vec<u32>,
    /// How those are reached that are not among `members`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<RealmAddress>,
}

/// A node of another world that hosts the realm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealmAddress {
    /// Its number.
    pub node: u32,
    /// Its cluster address, `host:port`.
    pub grpc: String,
}

impl RealmConfig {
    /// Checks it against the members of the node's own world.
    ///
    /// # Errors
    /// What is wrong, with the key.
    pub(super) fn validate(&self, members: &BTreeSet<u32>) -> Result<(), String> {
        let check = |ok: bool, reason: &str| if ok { Ok(()) } else { Err(reason.to_owned()) };
        let hosts: BTreeSet<_> = self.nodes.iter().copied().collect();
        check(hosts.len() == self.nodes.len() && !hosts.contains(&0), "realm.nodes must name each node once, from 1")?;
        check((1..=HOSTS_MAX).contains(&hosts.len()), "realm.nodes must name 1 to 7 nodes")?;
        check(hosts.len() % 2 == 1, "realm.nodes must be an odd number: an even one survives no more failures and costs more")?;
        let elsewhere: BTreeSet<_> = self.addresses.iter().map(|address| address.node).collect();
        check(elsewhere.len() == self.addresses.len(), "realm.addresses names a node twice")?;
        let expected: BTreeSet<_> = hosts.difference(members).copied().collect();
        match (expected.difference(&elsewhere).next(), elsewhere.difference(&expected).next()) {
            (Some(node), _) => Err(format!("realm.addresses must have node {node}, which is not among members")),
            (None, Some(node)) => Err(format!("realm.addresses must not have node {node}: it is a member, or hosts no realm")),
            (None, None) => Ok(()),
        }
    }
}
