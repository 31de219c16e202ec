//! What happened, in the words that the invariants speak.
//!
//! Observers inside the simulated machines and in the driver tell facts; each is a line of the trace, and each invariant sees
//! all of them in order. What a ghost tells (see [`crate::machine`]) is not heard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use marchland_types::{
    CharacterId, CommandSeq, CutNumber, GroupId, ItemId, LogIndex, Position, RegionId, ReplicaId, ReplySeq, Term, Tick,
};

use crate::oracle;
use crate::trace::{self, Mark};

/// Who gave a command: a player of the full stack, or a writer of a smaller scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

impl ClientId {
    /// Sessions of one person are numbered within these.
    pub const EPOCHS_MAX: u64 = 1_000;

    /// A person in the session of this epoch: numbers of commands and replies begin anew with every session.
    #[must_use]
    pub const fn of(person: u64, epoch: u64) -> Self {
        Self(person * Self::EPOCHS_MAX + epoch)
    }

    /// Whose session it is.
    #[must_use]
    pub const fn person(self) -> u64 {
        self.0 / Self::EPOCHS_MAX
    }

    /// Which of the person's sessions.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.0 % Self::EPOCHS_MAX
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A replica became its group's leader.
    Leads {
        /// The group.
        group: GroupId,
        /// In which term.
        term: Term,
        /// Who.
        replica: ReplicaId,
    },
    /// A node's data folder has an incarnation, as the folder, a directory or the realm knows.
    Bound {
        /// The node in this incarnation.
        replica: ReplicaId,
        /// The folder's id.
        folder: u128,
    },
    /// A replica owns its group's region from here on, or does so no more.
    Owns {
        /// The group.
        group: GroupId,
        /// Who.
        replica: ReplicaId,
        /// Whether it does.
        owns: bool,
    },
    /// A replica applied an entry.
    Applied {
        /// The group.
        group: GroupId,
        /// Who.
        replica: ReplicaId,
        /// Which entry.
        position: Position,
        /// A digest of the entry's payload.
        digest: u64,
    },
    /// A replica's state had this hash after the entry with this log index.
    StateHash {
        /// The group.
        group: GroupId,
        /// Who.
        replica: ReplicaId,
        /// When.
        at: u64,
        /// The hash.
        hash: u64,
        /// Hashes of its parts, if it has any.
        parts: Vec<(String, u64)>,
    },
    /// A client is in the world, over a new connection.
    Joined {
        /// Who.
        client: ClientId,
        /// Whether it went on with the session that it had.
        resumed: bool,
        /// Counted by the client.
        attach: u32,
    },
    /// A client was told which character its name stands for.
    Claimed {
        /// Who asked.
        client: ClientId,
        /// The name.
        name: String,
        /// The character.
        character: CharacterId,
    },
    /// A session went on over a new connection: the server expects this command next.
    GoesOn {
        /// Who.
        client: ClientId,
        /// The next command.
        next: CommandSeq,
    },
    /// All faults have ended.
    Quiet,
    /// Something that has a bound holds more than ever before in this run.
    Stands {
        /// What it is, as in the code.
        what: &'static str,
        /// How much it holds.
        found: u64,
        /// How much it may hold at most.
        bound: u64,
    },
    /// A client's connection has ended.
    Disconnected {
        /// Who.
        client: ClientId,
        /// Why, as the client knows.
        reason: String,
    },
    /// A cut was taken.
    CutTaken {
        /// Through which group.
        group: GroupId,
        /// Its number.
        cut: CutNumber,
        /// At which entry.
        at: LogIndex,
    },
    /// A client was told that a command is done.
    Acknowledged {
        /// Who gave it.
        client: ClientId,
        /// Which one.
        seq: CommandSeq,
    },
    /// A client received a frame.
    Shown {
        /// Who.
        client: ClientId,
        /// Of which region.
        region: RegionId,
        /// Of which tick.
        tick: Tick,
        /// Every command up to here was committed, it said.
        applied: CommandSeq,
    },
    /// A client received a numbered reply.
    Replied {
        /// Who.
        client: ClientId,
        /// The reply's number.
        reply: ReplySeq,
        /// Digest of what it said.
        digest: u64,
    },
    /// A client received the reply to one of its commands.
    Answered {
        /// Who.
        client: ClientId,
        /// Which command.
        command: CommandSeq,
    },
    /// A client was told that it now holds an item.
    Given {
        /// Who.
        client: ClientId,
        /// Which.
        item: ItemId,
    },
    /// A replica was read after a barrier.
    Read {
        /// The group.
        group: GroupId,
        /// Who was read.
        replica: ReplicaId,
        /// The newest entry that was acknowledged to anyone before the read began.
        acknowledged: LogIndex,
        /// The newest one that was seen.
        saw: LogIndex,
    },
    /// At the end: what a replica holds.
    Final(FinalState),
    /// At the end: a client lives, and this many frames reached it in the quiet phase.
    Served {
        /// Who.
        client: ClientId,
        /// Frames, or acknowledgements in scenarios without frames.
        times: u64,
    },
}

/// What a replica holds when the run ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalState {
    /// The group.
    pub group: GroupId,
    /// Who.
    pub replica: ReplicaId,
    /// Last entry applied.
    pub applied: LogIndex,
    /// Hash of the state.
    pub hash: u64,
    /// Commands in the history, one by one, with how often each was applied.
    pub commands: BTreeMap<(ClientId, CommandSeq), u32>,
    /// Commands of a client that are in the history up to a number without gaps.
    pub applied_up_to: BTreeMap<ClientId, CommandSeq>,
    /// Every copy of every unique item.
    pub items: Vec<ItemId>,
    /// Items that were ever made and not destroyed.
    pub items_expected: Option<u64>,
    /// Clients with a session there.
    pub sessions: BTreeSet<ClientId>,
    /// Every character that is present, as often as it is.
    pub characters: Vec<CharacterId>,
    /// What each client holds.
    pub inventories: BTreeMap<ClientId, Vec<ItemId>>,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leads { group, term, replica } => write!(f, "{replica} leads {group} in term {term}"),
            Self::Applied { group, replica, position, digest } => {
                write!(f, "{replica} applied {position} of {group}: {digest:016x}")
            }
            Self::StateHash { group, replica, at, hash, parts: _ } => {
                write!(f, "{replica} state of {group} at {at}: {hash:016x}")
            }
            Self::Bound { replica, folder } => write!(f, "folder {folder:032x} is {replica}"),
            Self::Owns { group, replica, owns: true } => write!(f, "{replica} owns {group}"),
            Self::Owns { group, replica, owns: false } => write!(f, "{replica} owns {group} no more"),
            Self::Joined { client, resumed, attach } => {
                write!(f, "{client} {} with attach {attach}", if *resumed { "resumed" } else { "signed in" })
            }
            Self::Claimed { client, name, character } => write!(f, "{client} as {name:?} is character {character}"),
            Self::GoesOn { client, next } => write!(f, "{client} goes on with {next}"),
            Self::Quiet => write!(f, "all faults have ended"),
            Self::Stands { what, found, bound } => write!(f, "{what} stands at {found} of {bound}"),
            Self::Disconnected { client, reason } => write!(f, "{client} lost its connection: {reason}"),
            Self::CutTaken { group, cut, at } => write!(f, "cut {cut} of {group} taken at {at}"),
            Self::Acknowledged { client, seq } => write!(f, "{client} was told that {seq} is done"),
            Self::Shown { client, region, tick, applied } => {
                write!(f, "{client} sees tick {tick} of region {region}, applied {applied}")
            }
            Self::Replied { client, reply, digest } => write!(f, "{client} has reply {reply}: {digest:016x}"),
            Self::Answered { client, command } => write!(f, "{client} has the answer to {command}"),
            Self::Given { client, item } => write!(f, "{client} holds item {item}"),
            Self::Read { group, replica, acknowledged, saw } => {
                write!(f, "{replica} of {group} was read at {saw}, acknowledged were {acknowledged}")
            }
            Self::Final(state) => write!(
                f,
                "{} ends {} at {} with {:016x}: {} commands, {} sessions, {} items",
                state.replica,
                state.group,
                state.applied,
                state.hash,
                state.commands.len() + state.applied_up_to.len(),
                state.sessions.len(),
                state.items.len()
            ),
            Self::Served { client, times } => write!(f, "{client} was served {times} times in the quiet phase"),
        }
    }
}

impl Fact {
    /// A short word for what kind of fact it is, as it stands in traces.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Leads { .. } => "leader",
            Self::Bound { .. } => "folder",
            Self::Owns { .. } => "owner",
            Self::Applied { .. } => "applied",
            Self::StateHash { .. } => "state",
            Self::Joined { .. } | Self::Claimed { .. } | Self::GoesOn { .. } | Self::Disconnected { .. } => "client",
            Self::Stands { .. } => "level",
            Self::CutTaken { .. } => "cut",
            Self::Acknowledged { .. } => "ack",
            Self::Read { .. } => "read",
            Self::Shown { .. } => "frame",
            Self::Replied { .. } | Self::Answered { .. } => "reply",
            Self::Given { .. } => "item",
            Self::Quiet | Self::Final(_) | Self::Served { .. } => "end",
        }
    }
}

/// Tells a fact: to the trace, and to every invariant.
pub fn tell(fact: &Fact) {
    if crate::machine::is_ghost() {
        return;
    }
    trace::event(|| Mark::Fact(fact.clone()), format_args!("{fact}"));
    oracle::hear(fact);
}

/// FNV-1a, for digests in facts.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
