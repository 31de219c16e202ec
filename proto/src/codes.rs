//! Stable codes that cross the wire. Numbers are never reused; each has its remedy.

/// Why something was refused, as a number that clients, peers and scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Code {
    /// Nothing is wrong.
    Ok = 0,
    /// A message that is not legal in the connection's state. Remedy: fix the client.
    WrongState = 1,
    /// Bytes that are not a message of the schema. Remedy: fix the client.
    Malformed = 2,
    /// A message or field larger than its limit. Remedy: send less at a time.
    TooLarge = 3,
    /// More messages than the rate allows. Remedy: send fewer; reconnect after `retry_after_ms`.
    TooMany = 4,
    /// The protocol version is not spoken here. Remedy: update the client.
    Version = 5,
    /// The sign-in token is not valid for this world, or has expired. Remedy: obtain a new one.
    BadToken = 6,
    /// The name is empty, too long, or has characters that names may not have. Remedy: choose another.
    BadName = 7,
    /// Another account holds this name. Remedy: choose another.
    NameTaken = 8,
    /// The session was taken over by a newer sign-in or attach. Remedy: none; the newer one is in force.
    Superseded = 9,
    /// The resume secret or session is not known. Remedy: sign in again.
    BadResume = 10,
    /// The server has no room. Remedy: try again after `retry_after_ms`, or another edge.
    Full = 11,
    /// The server is stopping. Remedy: reconnect to `other_edge` with the resume secret.
    GoingAway = 12,
    /// Nothing was heard from the client for too long. Remedy: reconnect with the resume secret.
    IdleTimeout = 13,
    /// An input's sequence number is not the expected one. Remedy: resume; Welcome names the number.
    SequenceGap = 14,
    /// The game does not know this action. Remedy: compare rules versions.
    UnknownAction = 15,
    /// The game refuses the action in this situation; the body says why. Remedy: the game's.
    Refused = 16,
    /// The handler failed; the command had no effect. Remedy: report it.
    Internal = 17,
    /// The cluster can not answer at the moment. Remedy: try again.
    Unavailable = 18,
    /// The character is not admitted here yet. Remedy: try again at once.
    NotAdmitted = 19,
    /// This node does not lead the group. Remedy: ask the leader that is named.
    NotLeader = 20,
    /// A number out of order between groups. Remedy: resend from the number that is named.
    Gap = 21,
    /// A peer may not do this with its certificate. Remedy: issue one with the role and world.
    Forbidden = 22,
    /// The session ended because the client said goodbye.
    Goodbye = 23,
    /// The world is not made yet. Remedy: try again.
    Unborn = 24,
    /// The character went to another region, which is named. Remedy: ask there.
    Moved = 25,
}

impl Code {
    /// Every code, for documentation and tests.
    pub const ALL: [Code; 26] = [
        Code::Ok,
        Code::WrongState,
        Code::Malformed,
        Code::TooLarge,
        Code::TooMany,
        Code::Version,
        Code::BadToken,
        Code::BadName,
        Code::NameTaken,
        Code::Superseded,
        Code::BadResume,
        Code::Full,
        Code::GoingAway,
        Code::IdleTimeout,
        Code::SequenceGap,
        Code::UnknownAction,
        Code::Refused,
        Code::Internal,
        Code::Unavailable,
        Code::NotAdmitted,
        Code::NotLeader,
        Code::Gap,
        Code::Forbidden,
        Code::Goodbye,
        Code::Unborn,
        Code::Moved,
    ];

    /// The code with this number, if this build knows it.
    #[must_use]
    pub fn from_u32(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u32 == value)
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn numbers_are_dense_and_known() {
        for (i, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, i);
            assert_eq!(Code::from_u32(i as u32), Some(code));
        }
        assert_eq!(Code::from_u32(26), None);
    }
}
