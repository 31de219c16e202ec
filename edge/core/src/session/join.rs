//! From `Hello` to `Welcome`: admitted by the directory or by a resume secret, then attached to the region.

use std::time::Duration;

use bytes::Bytes;
use marchland_proto::client::{Hello, Resume, SignIn, Welcome, hello::How};
use marchland_proto::cluster::{AttachAnswer, SessionMoved};
use marchland_proto::codes::Code;
use marchland_proto::storage::{AttachOrder, SignInAnswer};
use marchland_types::limits::{CLIENT_NAME_MAX_BYTES, NAME_MAX_BYTES, RESUME_SECRET_BYTES};
use marchland_types::{AttachNumber, CharacterId, GroupId, RegionId, SessionEpoch};

use super::commands::Unacked;
use super::{Effect, PROTOCOL_VERSION, Playing, Refusal, Session, SessionConfig, SessionKey, State, is_region, refusal_of};
use crate::replies::Replies;
use crate::secret_hash;

/// How soon an attach goes again to a region that has not heard from the directory yet, though it has waited for it: in time for its next
/// tick.
const NOT_ADMITTED_PAUSE: Duration = Duration::from_millis(10);
/// How soon an attach goes again that nobody answered.
const ATTACH_AGAIN: Duration = Duration::from_secs(1);
/// How soon the directory is asked again where a character is that was not where it said.
const LOCATE_AGAIN: Duration = Duration::from_millis(200);
/// How long a session that resumes is looked for: longer than its character is between two regions.
const RESUME_PATIENCE: Duration = Duration::from_secs(2);
/// After how long without being admitted one who signed in asks the directory where the character went.
const ADMIT_PATIENCE: Duration = Duration::from_secs(1);

/// Where a character is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The region's group.
    pub group: GroupId,
    /// The region.
    pub region: RegionId,
    /// The character's move number there; 0 when it is not known.
    pub move_number: u64,
    /// The world has no other region.
    pub is_only: bool,
}

/// What the directory says of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In a region.
    At(Located),
    /// In none that the directory knows of.
    Nowhere,
    /// It does not answer.
    Unknown,
}

/// Why the directory did not sign somebody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInRefused {
    /// A stable code, as it came.
    pub code: u32,
    /// English, for logs.
    pub reason: String,
}

/// How far a `Hello` has come.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) stage: Stage,
    /// The client has its secret and keeps it.
    resumes: bool,
    /// Since when it was in no region that was asked.
    missed_since: Option<Duration>,
}

/// Who wants to be attached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    key: SessionKey,
    secret_hash: [u8; 32],
    last_reply_seq: u64,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The directory was asked to admit the character.
    SigningIn,
    /// The directory was asked where the character is, or is to be asked at `ask_at`. `known`: where it was expected before.
    Locating { who: Who, ask_at: Option<Duration>, known: Option<Located> },
    /// The region was asked.
    Attaching { who: Who, at: Located, again_at: Duration },
}

impl Joining {
    pub(super) fn key(&self) -> Option<SessionKey> {
        match &self.stage {
            Stage::SigningIn => None,
            Stage::Locating { who, .. } | Stage::Attaching { who, .. } => Some(who.key),
        }
    }

    pub(super) fn group(&self) -> Option<GroupId> {
        match &self.stage {
            Stage::SigningIn | Stage::Locating { .. } => None,
            Stage::Attaching { at, .. } => Some(at.group),
        }
    }

    pub(super) fn stage_name(&self) -> &'static str {
        match &self.stage {
            Stage::SigningIn => "sign-in",
            Stage::Locating { .. } => "finding the character",
            Stage::Attaching { .. } => "attaching to the region",
        }
    }

    pub(super) fn attach_again(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if let Stage::Attaching { who, at, again_at } = &mut self.stage {
            *again_at = now + ATTACH_AGAIN;
            let order = AttachOrder {
                character: who.key.character.0,
                epoch: who.key.epoch.0,
                attach: who.key.attach.0,
                secret_hash: Bytes::copy_from_slice(&who.secret_hash),
                last_reply_seq: who.last_reply_seq,
            };
            out.push(Effect::Attach { group: at.group, order });
        }
    }

    pub(super) fn handle_time(&mut self, now: Duration, out: &mut Vec<Effect>) {
        match &mut self.stage {
            Stage::Attaching { again_at, .. } if now >= *again_at => self.attach_again(now, out),
            Stage::Locating { who, ask_at, .. } if ask_at.is_some_and(|at| now >= at) => {
                *ask_at = None;
                out.push(Effect::Locate { character: who.key.character });
            }
            Stage::SigningIn | Stage::Locating { .. } | Stage::Attaching { .. } => {}
        }
    }

    /// The character went on: it is asked for there. What is not news changes nothing.
    pub(super) fn moved(&mut self, now: Duration, moved: &SessionMoved, out: &mut Vec<Effect>) {
        if let Stage::Attaching { at, .. } = &mut self.stage
            && moved.move_number > at.move_number
            && is_region(moved)
        {
            let (group, region) = (GroupId(moved.group), RegionId(moved.region));
            *at = Located { group, region, move_number: moved.move_number, is_only: false };
            self.attach_again(now, out);
        }
    }

    /// Whether it has been looked for in vain for too long.
    fn gives_up(&self, now: Duration) -> bool {
        self.resumes && self.missed_since.is_some_and(|since| now.saturating_sub(since) >= RESUME_PATIENCE)
    }
}

impl Session {
    pub(super) fn join(&mut self, now: Duration, config: &SessionConfig, hello: Hello, out: &mut Vec<Effect>) {
        if hello.protocol_version != PROTOCOL_VERSION {
            let reason = format!("protocol version {}, {PROTOCOL_VERSION} expected", hello.protocol_version);
            return self.refuse(Refusal::new(Code::Version, reason), out);
        }
        if hello.client_name.len() > CLIENT_NAME_MAX_BYTES {
            let reason = format!("client name of {} bytes, at most {CLIENT_NAME_MAX_BYTES}", hello.client_name.len());
            return self.refuse(Refusal::new(Code::TooLarge, reason), out);
        }
        let joining = match hello.how {
            None => return self.refuse(Refusal::new(Code::Malformed, "hello neither signs in nor resumes"), out),
            Some(How::SignIn(sign_in)) => self.begin_sign_in(sign_in, out),
            Some(How::Resume(resume)) => begin_resume(&resume, out),
        };
        match joining {
            Ok(joining) => self.state = State::Joining { joining, until: now + config.join_deadline },
            Err(refusal) => self.refuse(refusal, out),
        }
    }

    fn begin_sign_in(&self, sign_in: SignIn, out: &mut Vec<Effect>) -> Result<Joining, Refusal> {
        let SignIn { token, character_name } = sign_in;
        if character_name.is_empty() || character_name.len() > NAME_MAX_BYTES {
            let reason = format!("name of {} bytes, 1 to {NAME_MAX_BYTES} expected", character_name.len());
            return Err(Refusal::new(Code::BadName, reason));
        }
        let secret_hash = secret_hash(&self.secret);
        out.push(Effect::SignIn { token, character_name, secret_hash, request_id: self.request_id });
        Ok(Joining { stage: Stage::SigningIn, resumes: false, missed_since: None })
    }

    /// The directory's answer to [`Effect::SignIn`].
    pub fn handle_signed_in(&mut self, now: Duration, answer: Result<&SignInAnswer, SignInRefused>, out: &mut Vec<Effect>) {
        let State::Joining { joining, .. } = &mut self.state else { return };
        if !matches!(joining.stage, Stage::SigningIn) {
            return;
        }
        match answer {
            Ok(answer) if answer.code == Code::Ok as u32 => {
                let key = SessionKey {
                    character: CharacterId(answer.character),
                    epoch: SessionEpoch(answer.epoch),
                    attach: AttachNumber(1),
                };
                let (group, region) = (GroupId(answer.group), RegionId(answer.region));
                let at = Located { group, region, move_number: answer.move_number, is_only: false };
                let who = Who { key, secret_hash: secret_hash(&self.secret), last_reply_seq: 0 };
                joining.stage = Stage::Attaching { who, at, again_at: now };
                joining.attach_again(now, out);
            }
            Ok(answer) => self.refuse(refusal_of(answer.code, "sign-in refused by the directory"), out),
            Err(SignInRefused { code, reason }) => self.refuse(refusal_of(code, &reason), out),
        }
    }

    /// The answer to [`Effect::Locate`].
    pub fn handle_located(&mut self, now: Duration, found: Whereabouts, out: &mut Vec<Effect>) {
        let joining = match &mut self.state {
            State::Joining { joining, .. } => joining,
            State::Playing(playing) | State::Leaving { playing, .. } => return playing.located(now, found, out),
            State::Fresh { .. } | State::Closed => return,
        };
        let Stage::Locating { who, ask_at: None, known } = joining.stage else { return };
        let at = match (found, known) {
            // What a region said may be newer than what the directory knows.
            (Whereabouts::At(at), Some(known)) if known.move_number > at.move_number => known,
            (Whereabouts::At(at), _) => at,
            // Its admission is on its way there.
            (Whereabouts::Nowhere | Whereabouts::Unknown, Some(known)) if !joining.resumes => known,
            (Whereabouts::Unknown, None) if joining.missed_since.is_none() => {
                return self.refuse(Refusal::new(Code::Unavailable, "no region answers for this character"), out);
            }
            (Whereabouts::Nowhere | Whereabouts::Unknown, known) => return self.missed(now, who, known, out),
        };
        joining.stage = Stage::Attaching { who, at, again_at: now };
        joining.attach_again(now, out);
    }

    /// The character is not where it was looked for: it may be between two regions.
    fn missed(&mut self, now: Duration, who: Who, known: Option<Located>, out: &mut Vec<Effect>) {
        let State::Joining { joining, .. } = &mut self.state else { return };
        joining.missed_since.get_or_insert(now);
        if joining.gives_up(now) {
            return self.refuse(Refusal::new(Code::BadResume, "session unknown to every region"), out);
        }
        joining.stage = Stage::Locating { who, ask_at: Some(now + LOCATE_AGAIN), known };
    }

    /// The region's answer while joining.
    pub(super) fn joined(&mut self, now: Duration, config: &SessionConfig, answer: &AttachAnswer, out: &mut Vec<Effect>) {
        let State::Joining { joining, .. } = &mut self.state else { return };
        let (resumes, missed_since) = (joining.resumes, joining.missed_since);
        let Stage::Attaching { who, at, again_at } = &mut joining.stage else { return };
        if (answer.epoch, answer.attach) != (who.key.epoch.0, who.key.attach.0) {
            return;
        }
        let (who, at) = (*who, *at);
        let code = match (Code::from_u32(answer.code), &answer.moved) {
            // It left the world from there. Its admission may be on its way, as may that of one who was never there.
            (Some(Code::Moved), Some(moved)) if !is_region(moved) => Some(Code::NotAdmitted),
            (code, _) => code,
        };
        match code {
            Some(Code::Ok) => {}
            Some(Code::Moved) => {
                match &answer.moved {
                    Some(moved) if moved.move_number > at.move_number => joining.moved(now, moved, out),
                    // It was there before and is on its way back.
                    Some(_) | None => *again_at = now + NOT_ADMITTED_PAUSE,
                }
                return;
            }
            // The directory's message is on its way; or the character went on.
            Some(Code::NotAdmitted) if !resumes => {
                *again_at = now + NOT_ADMITTED_PAUSE;
                let since = missed_since.unwrap_or(now);
                joining.missed_since = Some(since);
                if now.saturating_sub(since) >= ADMIT_PATIENCE {
                    joining.missed_since = Some(now);
                    joining.stage = Stage::Locating { who, ask_at: None, known: Some(at) };
                    out.push(Effect::Locate { character: who.key.character });
                }
                return;
            }
            Some(Code::NotAdmitted) if at.is_only => {
                return self.refuse(Refusal::new(Code::BadResume, "session unknown to the region"), out);
            }
            Some(Code::NotAdmitted) => return self.missed(now, who, Some(at), out),
            _ => return self.refuse(refusal_of(answer.code, "attach refused by the region"), out),
        }
        let Who { key, secret_hash, last_reply_seq } = who;
        let mut replies = Replies::after(last_reply_seq);
        replies.offer_kept(&answer.replies);
        let welcome = Welcome {
            protocol_version: PROTOCOL_VERSION,
            rules_version: answer.rules_version,
            content_hash: answer.content_hash,
            character_id: key.character.0,
            session_epoch: key.epoch.0,
            resume_secret: if resumes { Bytes::new() } else { Bytes::copy_from_slice(&self.secret) },
            next_seq: answer.next_seq.max(1),
            self_entity: answer.entity,
            tick_ms: config.tick_ms,
            region: at.region.0,
            world: config.world_name.clone(),
            max_speed: answer.max_speed,
            attach_number: key.attach.0,
        };
        let playing = Playing {
            key,
            group: at.group,
            home: at.group,
            move_number: at.move_number,
            transit: None,
            secret_hash,
            unacked: Unacked::from_next(answer.next_seq),
            acked_reply_seq: last_reply_seq,
            replies,
            given_at: now,
            asked_again: false,
        };
        self.state = State::Playing(playing);
        self.heard_at = now;
        out.push(Effect::Welcome(Box::new(welcome)));
    }
}

fn begin_resume(resume: &Resume, out: &mut Vec<Effect>) -> Result<Joining, Refusal> {
    if resume.resume_secret.len() != RESUME_SECRET_BYTES {
        let reason = format!("resume secret of {} bytes, {RESUME_SECRET_BYTES} expected", resume.resume_secret.len());
        return Err(Refusal::new(Code::BadResume, reason));
    }
    let character = CharacterId(resume.character_id);
    let key = SessionKey { character, epoch: SessionEpoch(resume.session_epoch), attach: AttachNumber(resume.attach_number) };
    out.push(Effect::Locate { character });
    let who = Who { key, secret_hash: secret_hash(&resume.resume_secret), last_reply_seq: resume.last_reply_seq };
    Ok(Joining { stage: Stage::Locating { who, ask_at: None, known: None }, resumes: true, missed_since: None })
}
