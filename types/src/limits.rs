//! Every limit of the system, in one place, with the relations between them proved at compile time.
//!
//! Units stand last in the name. A queue without a limit here has its limit, with the reason, beside it.

/// Length of a tick with players, in milliseconds of game time. Twenty ticks a second.
pub const TICK_MS: u64 = 50;
/// Ticks that an owner may have proposed but not yet applied. Past that, time dilates.
pub const TICKS_IN_FLIGHT: usize = 2;
/// Ticks by which the majority of a region's replicas may be behind the owner. Past that, time dilates: a standby is to be hot.
pub const STANDBY_LAG_MAX: u64 = 4;
/// Side of a cell of ground, in metres.
pub const CELL_SIZE_M: f32 = 25.0;
/// One metre in the packed position records: positions are multiples of 1/64 m.
pub const QUANTA_PER_M: f32 = 64.0;
/// Most entities that one client is shown at a time. An alias of a client fits in seven bits.
pub const VISIBLE_MAX: usize = 64;
/// Entities shown unless the configuration says otherwise.
pub const VISIBLE_DEFAULT: usize = 32;
/// Radius within which a client is shown entities unless the configuration says otherwise, in metres.
pub const VIEW_RADIUS_M: f32 = 50.0;

/// Largest WebSocket message that a client may send.
pub const CLIENT_MESSAGE_MAX_BYTES: usize = 4 * 1024;
/// Inputs in one client message. More than a slow frame of a 144 Hz client gathers in a second is abuse.
pub const INPUTS_PER_MESSAGE_MAX: usize = 64;
/// Body of one game action, in bytes.
pub const ACTION_MAX_BYTES: usize = 1024;
/// Commands of one session that its edge holds until they are acknowledged: five seconds at 20 Hz leaves room for a failover.
pub const UNACKED_COMMANDS_MAX: usize = 128;
/// Movement inputs that a region keeps for one character until their time has passed.
pub const QUEUED_MOVES_MAX: usize = 32;
/// Replies and events that a region keeps for one session until the client acknowledged them.
pub const KEPT_REPLIES_MAX: usize = 256;
/// Bytes of those.
pub const KEPT_REPLIES_MAX_BYTES: usize = 64 * 1024;
/// Longest character name, in bytes of UTF-8.
pub const NAME_MAX_BYTES: usize = 32;
/// Length of a session's resume secret, in bytes.
pub const RESUME_SECRET_BYTES: usize = 32;
/// Longest free text with which a client names itself in `Hello`, in bytes.
pub const CLIENT_NAME_MAX_BYTES: usize = 64;
/// Most movement time that one input may cover, and the most that a character may have saved up, in milliseconds.
pub const INPUT_MAX_MS: u32 = 250;
/// Messages a second that a client may send for as long as it likes.
pub const CLIENT_MESSAGES_PER_S: u32 = 60;
/// Messages that a client may send at once after a silence: two seconds' worth.
pub const CLIENT_MESSAGES_BURST: u32 = 120;
/// `Ping`s a second that a client may send.
pub const PINGS_PER_S: u32 = 5;
/// `Ping`s that a client may send at once after a silence.
pub const PINGS_BURST: u32 = 10;
/// Time from the end of the WebSocket handshake within which `Hello` must arrive, in milliseconds.
pub const HELLO_DEADLINE_MS: u64 = 5_000;
/// Time within which a `Hello` is answered, in milliseconds. Longer than a failover, so that one does not cost a sign-in.
pub const JOIN_DEADLINE_MS: u64 = 10_000;
/// A client of which nothing was heard for this long is closed, in milliseconds.
pub const IDLE_TIMEOUT_MS: u64 = 30_000;
/// How long a character stays in the world after its last client was lost, unless the region says otherwise, in milliseconds.
pub const LINGER_MS: u64 = 15_000;
/// Sessions that one region admits.
pub const SESSIONS_PER_REGION_MAX: usize = 4096;

/// Inputs of one tick, over all sessions and channels. Twice what full regions of 20 Hz clients send in a tick at 10 % rate.
pub const INPUTS_PER_TICK_MAX: usize = 65_536;
/// Encoded size of one log entry. A tick that would be larger leaves inputs for the next one.
pub const LOG_ENTRY_MAX_BYTES: usize = 8 * 1024 * 1024;
/// One message between groups. A character with all that belongs to it, kept replies included, fits in one.
pub const CHANNEL_MESSAGE_MAX_BYTES: usize = 256 * 1024;
/// What a character takes into its vault and out again, with 10 bytes for each item: a value of the keyed store, in few pieces.
pub const CARRIED_MAX_BYTES: usize = 64 * 1024 - 512;
/// Messages that an outbox holds for one receiver. When it is full, the sender refuses or closes the border.
pub const CHANNEL_MESSAGES_MAX: usize = 1024;
/// One gRPC message of the cluster, in bytes.
pub const CLUSTER_MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;
/// A chunk of a snapshot on the wire.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;
/// Entries of a group's log that may wait in memory above its last checkpoint, in bytes, before new proposals are refused.
pub const LOG_MEMORY_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Largest value that is given to the keyed store in one piece; larger ones are split.
pub const KEYED_VALUE_MAX_BYTES: usize = 32 * 1024;

const _: () = assert!(VISIBLE_DEFAULT <= VISIBLE_MAX);
const _: () = assert!(VISIBLE_MAX <= 128, "an alias is seven bits");
const _: () = assert!(LOG_ENTRY_MAX_BYTES + 64 * 1024 <= CLUSTER_MESSAGE_MAX_BYTES, "an entry travels in one append");
const _: () = assert!(SNAPSHOT_CHUNK_BYTES + 1024 <= CLUSTER_MESSAGE_MAX_BYTES);
const _: () = assert!(ACTION_MAX_BYTES + 64 <= CLIENT_MESSAGE_MAX_BYTES, "an action fits in a message");
const _: () = assert!(QUEUED_MOVES_MAX < UNACKED_COMMANDS_MAX);
const _: () = assert!(INPUTS_PER_MESSAGE_MAX <= UNACKED_COMMANDS_MAX);
const _: () = assert!(INPUT_MAX_MS as u64 >= TICK_MS, "a client that sends once a tick can cover it");
const _: () = assert!(HELLO_DEADLINE_MS < IDLE_TIMEOUT_MS && JOIN_DEADLINE_MS < IDLE_TIMEOUT_MS);
const _: () = assert!(CHANNEL_MESSAGE_MAX_BYTES <= LOG_ENTRY_MAX_BYTES);
const _: () = assert!(CARRIED_MAX_BYTES * 2 <= CHANNEL_MESSAGE_MAX_BYTES);
const _: () = assert!(KEPT_REPLIES_MAX_BYTES * 2 <= CHANNEL_MESSAGE_MAX_BYTES, "a session crosses a border");
const _: () = assert!(SESSIONS_PER_REGION_MAX * 8 <= INPUTS_PER_TICK_MAX);
