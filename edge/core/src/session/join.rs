//! From `Hello` to `Welcome`: admitted by the directory or by a resume secret, then attached to the region.

use std::time::Duration;

use bytes::Bytes;
use marchland_proto::client::{Hello, Resume, SignIn, Welcome, hello::How};
use marchland_proto::cluster::AttachAnswer;
use marchland_proto::codes::Code;
use marchland_proto::storage::{AttachOrder, SignInAnswer};
use marchland_types::limits::{CLIENT_NAME_MAX_BYTES, NAME_MAX_BYTES, RESUME_SECRET_BYTES};
use marchland_types::{AttachNumber, CharacterId, GroupId, RegionId, SessionEpoch};

use super::commands::Unacked;
use super::{Effect, PROTOCOL_VERSION, Playing, Refusal, Session, SessionConfig, SessionKey, State, refusal_of};
use crate::replies::Replies;
use crate::secret_hash;

/// How soon an attach goes again to a region that has not heard from the directory yet.
const NOT_ADMITTED_PAUSE: Duration = Duration::from_millis(50);
/// How soon an attach goes again that nobody answered.
const ATTACH_AGAIN: Duration = Duration::from_secs(1);

/// Where a character is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The region's group.
    pub group: GroupId,
    /// The region.
    pub region: RegionId,
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
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The directory was asked to admit the character.
    SigningIn,
    /// The directory was asked where the character is.
    Locating { key: SessionKey, secret_hash: [u8; 32], last_reply_seq: u64 },
    /// The region was asked.
    Attaching { key: SessionKey, secret_hash: [u8; 32], last_reply_seq: u64, at: Located, again_at: Duration },
}

impl Joining {
    pub(super) fn key(&self) -> Option<SessionKey> {
        match &self.stage {
            Stage::SigningIn => None,
            Stage::Locating { key, .. } | Stage::Attaching { key, .. } => Some(*key),
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
        if let Stage::Attaching { key, secret_hash, last_reply_seq, at, again_at } = &mut self.stage {
            *again_at = now + ATTACH_AGAIN;
            let order = AttachOrder {
                character: key.character.0,
                epoch: key.epoch.0,
                attach: key.attach.0,
                secret_hash: Bytes::copy_from_slice(secret_hash),
                last_reply_seq: *last_reply_seq,
            };
            out.push(Effect::Attach { group: at.group, order });
        }
    }

    pub(super) fn handle_time(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if let Stage::Attaching { again_at, .. } = &self.stage
            && now >= *again_at
        {
            self.attach_again(now, out);
        }
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
        Ok(Joining { stage: Stage::SigningIn, resumes: false })
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
                let at = Located { group: GroupId(answer.group), region: RegionId(answer.region) };
                let secret_hash = secret_hash(&self.secret);
                joining.stage = Stage::Attaching { key, secret_hash, last_reply_seq: 0, at, again_at: now };
                joining.attach_again(now, out);
            }
            Ok(answer) => self.refuse(refusal_of(answer.code, "sign-in refused by the directory"), out),
            Err(SignInRefused { code, reason }) => self.refuse(refusal_of(code, &reason), out),
        }
    }

    /// The answer to [`Effect::Locate`]. `None`: nobody could say; the client is to try again.
    pub fn handle_located(&mut self, now: Duration, found: Option<Located>, out: &mut Vec<Effect>) {
        let State::Joining { joining, .. } = &mut self.state else { return };
        let Stage::Locating { key, secret_hash, last_reply_seq } = joining.stage else { return };
        match found {
            Some(at) => {
                joining.stage = Stage::Attaching { key, secret_hash, last_reply_seq, at, again_at: now };
                joining.attach_again(now, out);
            }
            None => self.refuse(Refusal::new(Code::Unavailable, "no region answers for this character"), out),
        }
    }

    /// The region's answer while joining.
    pub(super) fn joined(&mut self, now: Duration, config: &SessionConfig, answer: &AttachAnswer, out: &mut Vec<Effect>) {
        let State::Joining { joining, .. } = &mut self.state else { return };
        let resumes = joining.resumes;
        let Stage::Attaching { key, secret_hash, last_reply_seq, at, again_at } = &mut joining.stage else { return };
        if (answer.epoch, answer.attach) != (key.epoch.0, key.attach.0) {
            return;
        }
        match Code::from_u32(answer.code) {
            Some(Code::Ok) => {}
            // The directory's message is on its way.
            Some(Code::NotAdmitted) if !resumes => {
                *again_at = now + NOT_ADMITTED_PAUSE;
                return;
            }
            Some(Code::NotAdmitted) => {
                return self.refuse(Refusal::new(Code::BadResume, "session unknown to the region"), out);
            }
            _ => return self.refuse(refusal_of(answer.code, "attach refused by the region"), out),
        }
        let (key, at) = (*key, *at);
        let mut replies = Replies::after(*last_reply_seq);
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
            secret_hash: *secret_hash,
            unacked: Unacked::from_next(answer.next_seq),
            acked_reply_seq: *last_reply_seq,
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
    let secret_hash = secret_hash(&resume.resume_secret);
    let stage = Stage::Locating { key, secret_hash, last_reply_seq: resume.last_reply_seq };
    Ok(Joining { stage, resumes: true })
}
