//! What an entity is made of: an [`Identity`] that seldom changes and a [`Body`] that does so every tick.

use std::sync::Arc;

use bytes::Bytes;
use marchland_types::{CharacterId, EntityId, MoveNumber};

use crate::codec::{CodecError, Reader, Row, Writer};

/// Entities that one region holds. Slots stay small and a damaged checkpoint can not ask for more.
pub const ENTITIES_MAX: u32 = 1 << 20;
/// Farthest that anything is from the origin, in metres along each axis.
pub const POSITION_MAX_M: f32 = 1_000_000.0;
/// Longest appearance, in bytes.
pub const LOOK_MAX_BYTES: usize = 1024;
/// Characters that one audience names.
pub const AUDIENCE_MAX: usize = 64;

/// Who is shown an entity or an event. What is hidden never reaches an edge without an entitled viewer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// Everyone.
    #[default]
    Public,
    /// The members of a party.
    Party(Vec<CharacterId>),
    /// One character.
    Owner(CharacterId),
    /// These characters.
    Named(Vec<CharacterId>),
}

impl Audience {
    /// Who is entitled; empty for [`Audience::Public`].
    #[must_use]
    pub fn characters(&self) -> &[CharacterId] {
        match self {
            Self::Public => &[],
            Self::Owner(character) => std::slice::from_ref(character),
            Self::Party(characters) | Self::Named(characters) => characters,
        }
    }

    /// The discriminant on disk and on the wire: 0 public, 1 party, 2 owner, 3 named.
    #[must_use]
    pub const fn kind(&self) -> u32 {
        match self {
            Self::Public => 0,
            Self::Party(_) => 1,
            Self::Owner(_) => 2,
            Self::Named(_) => 3,
        }
    }

    fn put(&self, out: &mut Writer) {
        out.u8(self.kind() as u8);
        if self.kind() != 0 {
            out.count(self.characters().len());
            for character in self.characters() {
                out.u64(character.0);
            }
        }
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let kind = input.u8()?;
        if kind == 0 {
            return Ok(Self::Public);
        }
        let mut characters = Vec::new();
        for _ in 0..input.count(8)? {
            characters.push(CharacterId(input.u64()?));
        }
        match (kind, characters.as_slice()) {
            (1, _) => Ok(Self::Party(characters)),
            (2, &[owner]) => Ok(Self::Owner(owner)),
            (3, _) => Ok(Self::Named(characters)),
            _ => Err(CodecError::Invalid("an audience of unknown kind")),
        }
    }
}

/// What an entity is, as far as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id, never used again.
    pub entity: EntityId,
    /// The game's kind.
    pub kind: u32,
    /// The player's character that it embodies.
    pub character: Option<CharacterId>,
    /// Shown above it; may be empty.
    pub name: Arc<str>,
    /// Appearance, in the game's encoding; at most [`LOOK_MAX_BYTES`].
    pub look: Bytes,
    /// Weight in interest; 0 is the default.
    pub priority: u32,
    /// Who is shown it.
    pub audience: Audience,
    /// Raised by every handoff.
    pub move_number: MoveNumber,
}

impl Row for Identity {
    fn put(&self, out: &mut Writer) {
        out.u64(self.entity.0);
        out.u32(self.kind);
        out.u64(self.character.map_or(0, |character| character.0));
        out.bytes(self.name.as_bytes());
        out.bytes(&self.look);
        out.u32(self.priority);
        self.audience.put(out);
        out.u64(self.move_number.0);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            entity: EntityId(input.u64()?),
            kind: input.u32()?,
            character: Some(CharacterId(input.u64()?)).filter(|character| character.0 != 0),
            name: input.text()?.into(),
            look: input.owned()?,
            priority: input.u32()?,
            audience: Audience::take(input)?,
            move_number: MoveNumber(input.u64()?),
        })
    }
}

/// Where an entity is and how it moves. All numbers are finite, and positions within [`POSITION_MAX_M`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Body {
    /// East, up, south, in metres.
    pub position: [f32; 3],
    /// Metres a second.
    pub velocity: [f32; 3],
    /// Facing, 256 steps a turn: 0 is east, 64 south.
    pub yaw: u8,
    /// The game's.
    pub flags: u16,
    /// Raised when the position jumps, so that nobody smooths the way there.
    pub discontinuity: u32,
}

impl Body {
    /// Whether every number is one that the state may hold.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.position.iter().all(|value| value.abs() <= POSITION_MAX_M) && self.velocity.iter().all(|value| value.is_finite())
    }

    /// Unit vector (east, south) of the facing.
    #[must_use]
    pub fn facing(&self) -> [f32; 2] {
        let angle = f32::from(self.yaw) * (std::f32::consts::TAU / 256.0);
        [libm::cosf(angle), libm::sinf(angle)]
    }
}

impl Row for Body {
    fn put(&self, out: &mut Writer) {
        for value in self.position.into_iter().chain(self.velocity) {
            out.f32(value);
        }
        out.u8(self.yaw);
        out.u16(self.flags);
        out.u32(self.discontinuity);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let body = Self {
            position: [input.f32()?, input.f32()?, input.f32()?],
            velocity: [input.f32()?, input.f32()?, input.f32()?],
            yaw: input.u8()?,
            flags: input.u16()?,
            discontinuity: input.u32()?,
        };
        if body.is_sound() { Ok(body) } else { Err(CodecError::Invalid("a body is out of the world")) }
    }
}

/// A new entity, as a game asks for it. Built in the manner of
/// `Spawn::new(KIND_ORE).at([3.0, 0.0, 4.0]).look(bytes)`.
#[derive(Clone, Debug, Default)]
pub struct Spawn {
    /// The game's kind.
    pub kind: u32,
    /// Shown above it.
    pub name: String,
    /// Appearance, in the game's encoding.
    pub look: Bytes,
    /// East, up, south, in metres.
    pub position: [f32; 3],
    /// Facing, 256 steps a turn.
    pub yaw: u8,
    /// Weight in interest; 0 is the default.
    pub priority: u32,
    /// Who is shown it.
    pub audience: Audience,
}

impl Spawn {
    /// A nameless public entity of `kind` at the origin.
    #[must_use]
    pub fn new(kind: u32) -> Self {
        Self { kind, ..Self::default() }
    }

    /// At `position`, in metres.
    #[must_use]
    pub fn at(mut self, position: [f32; 3]) -> Self {
        self.position = position;
        self
    }

    /// Facing `yaw`.
    #[must_use]
    pub fn facing(mut self, yaw: u8) -> Self {
        self.yaw = yaw;
        self
    }

    /// Looking like `look`.
    #[must_use]
    pub fn look(mut self, look: impl Into<Bytes>) -> Self {
        self.look = look.into();
        self
    }

    /// Called `name`.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Of this weight in interest.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// Shown to these alone.
    #[must_use]
    pub fn shown_to(mut self, audience: Audience) -> Self {
        self.audience = audience;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_refuse_what_can_not_be() {
        let identity = Identity {
            entity: EntityId(7),
            kind: 3,
            character: Some(CharacterId(9)),
            name: "Ada".into(),
            look: Bytes::from_static(b"look"),
            priority: 2,
            audience: Audience::Party(vec![CharacterId(9), CharacterId(10)]),
            move_number: MoveNumber(4),
        };
        for audience in
            [identity.audience.clone(), Audience::Public, Audience::Owner(CharacterId(1)), Audience::Named(Vec::new())]
        {
            let identity = Identity { audience, ..identity.clone() };
            let mut out = Writer::new();
            identity.put(&mut out);
            assert_eq!(Identity::take(&mut Reader::new(out.as_slice())), Ok(identity));
        }
        let body = Body { position: [1.0, 2.0, 3.0], yaw: 64, discontinuity: 5, ..Body::default() };
        for (body, sound) in [(body, true), (Body { position: [2e6, 0.0, 0.0], ..body }, false)] {
            let mut out = Writer::new();
            body.put(&mut out);
            assert_eq!(Body::take(&mut Reader::new(out.as_slice())).is_ok(), sound);
        }
        assert!(body.facing()[0].abs() < 1e-6 && (body.facing()[1] - 1.0).abs() < 1e-6);
    }
}
