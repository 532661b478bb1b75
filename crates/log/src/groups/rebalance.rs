//! Joining, syncing, beating, leaving: how a group comes from one generation to the next.
//!
//! Two waits: for the members to join (`Preparing`), bounded by the longest rebalance timeout among them, and for the leader's
//! assignment (`Completing`), bounded the same way; whoever has not come by then is removed and the others go on.

use base::Tick;
use bytes::Bytes;

use super::coordinator::{Record, Ticket, WriteId};
use super::error::GroupError;
use super::group::{Context, Group, Initial, Member, State};
use super::limits::{GROUP_ASSIGNMENT_BYTES_MAX, GROUP_METADATA_BYTES_MAX, NAME_BYTES_MAX, PROTOCOLS_MAX, WRITES_MAX};
use super::request::{Assignment, Join, Joined, Leaver, Response, Synced};
use super::write::{Reply, What};

/// What a member says with a sync.
pub struct Sync {
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignments: Vec<Assignment>,
}

impl Group {
    /// Answers now, or when the members have joined.
    pub fn join(&mut self, cx: &mut Context<'_>, ticket: Ticket, join: Join) {
        let outcome = self.check_join(cx, &join).and_then(|()| match (join.instance.clone(), join.member.is_empty()) {
            (Some(instance), true) => match self.instances.get(&instance).cloned() {
                Some(holder) => {
                    self.replace_static(cx, ticket, &holder, join);
                    Ok(())
                }
                None => self.add(cx, ticket, &instance, join),
            },
            (None, true) if join.id_required => self.promise(cx, &join),
            (None, true) => self.add(cx, ticket, &join.client_id.clone(), join),
            (None, false) if self.promised.remove(&join.member).is_some() => {
                self.admit(cx, ticket, join.member.clone(), join);
                Ok(())
            }
            (instance, false) => {
                self.check_identity(&join.member, instance.as_deref())?;
                self.rejoin(cx, ticket, join)
            }
        });
        if let Err(error) = outcome {
            cx.respond(ticket, Response::Join(Err(error)));
        }
    }

    fn check_join(&self, cx: &Context<'_>, join: &Join) -> Result<(), GroupError> {
        let (min_ms, max_ms) = (cx.config.session_timeout_ms_min, cx.config.session_timeout_ms_max);
        if !(min_ms..=max_ms).contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout { asked_ms: join.session_timeout_ms, min_ms, max_ms });
        }
        let names = [&join.client_id, &join.client_host, &join.member, &join.protocol_type];
        let offered = join.protocols.iter().map(|offered| &offered.name);
        if names.into_iter().chain(&join.instance).chain(offered).any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(GroupError::TooLarge { what: "a name", max: NAME_BYTES_MAX });
        }
        if join.protocols.len() > PROTOCOLS_MAX {
            return Err(GroupError::TooLarge { what: "the list of protocols", max: PROTOCOLS_MAX });
        }
        let others = self.members.iter().filter(|(id, _)| **id != join.member);
        let held: usize = others.map(|(_, member)| member.told_bytes()).sum();
        if held + join.told_bytes() > GROUP_METADATA_BYTES_MAX {
            return Err(GroupError::TooLarge { what: "the members' metadata", max: GROUP_METADATA_BYTES_MAX });
        }
        // A static member that comes back without its id is compared with the others only.
        let own = join.instance.as_ref().and_then(|instance| self.instances.get(instance)).unwrap_or(&join.member);
        let fits = if self.members.keys().any(|id| id != own) {
            join.protocol_type == self.protocol_type && self.supports(&join.protocols, own)
        } else {
            !join.protocol_type.is_empty() && !join.protocols.is_empty()
        };
        if fits { Ok(()) } else { Err(GroupError::InconsistentProtocol) }
    }

    /// Tells a new member its id; it is a member when it joins with it.
    fn promise(&mut self, cx: &mut Context<'_>, join: &Join) -> Result<(), GroupError> {
        self.check_room(cx)?;
        let id = cx.ids.next(&join.client_id);
        self.promised.insert(id.clone(), cx.now.plus(join.session_timeout_ms));
        Err(GroupError::MemberIdRequired(id))
    }

    fn add(&mut self, cx: &mut Context<'_>, ticket: Ticket, prefix: &str, join: Join) -> Result<(), GroupError> {
        self.check_room(cx)?;
        let id = cx.ids.next(prefix);
        self.admit(cx, ticket, id, join);
        Ok(())
    }

    fn check_room(&self, cx: &Context<'_>) -> Result<(), GroupError> {
        let size = self.members.len() + self.promised.len();
        if size < cx.config.group_size_max { Ok(()) } else { Err(GroupError::GroupFull(size)) }
    }

    fn admit(&mut self, cx: &mut Context<'_>, ticket: Ticket, id: String, join: Join) {
        self.insert(cx.now, id, ticket, join);
        if let State::Preparing { initial: Some(initial), .. } = &mut self.state {
            initial.has_grown = true;
        }
        self.prepare(cx);
    }

    fn rejoin(&mut self, cx: &mut Context<'_>, ticket: Ticket, join: Join) -> Result<(), GroupError> {
        let leads = self.is_leader(&join.member);
        let Some(member) = self.members.get_mut(&join.member) else { return Err(GroupError::UnknownMember) };
        let is_same = member.protocols == join.protocols;
        let is_answered = match self.state {
            State::Empty => return Err(GroupError::UnknownMember),
            State::Preparing { .. } => false,
            // The answer was lost.
            State::Completing { .. } => is_same,
            // A leader that joins again asks for a rebalance.
            State::Stable => is_same && !leads,
        };
        if is_answered {
            member.refresh(cx.now);
            let joined = self.joined(&join.member, leads);
            cx.respond(ticket, Response::Join(Ok(joined)));
        } else {
            if self.members.len() == 1 {
                self.protocol_type.clone_from(&join.protocol_type);
            }
            let Some(member) = self.members.get_mut(&join.member) else { return Err(GroupError::UnknownMember) };
            member.renew(cx, Some(ticket), join);
            self.prepare(cx);
        }
        Ok(())
    }

    /// A static member came back without its id, because its process was restarted: it takes over, under a new id that
    /// fences the old process. If it wants what it wanted before, nobody else notices.
    fn replace_static(&mut self, cx: &mut Context<'_>, ticket: Ticket, holder: &str, join: Join) {
        let Some(mut member) = self.members.remove(holder) else { return };
        member.fail_waits(cx, &GroupError::FencedInstance);
        let instance = join.instance.clone().unwrap_or_default();
        let id = cx.ids.next(&instance);
        let led = self.is_leader(holder);
        if led {
            self.leader = Some(id.clone());
        }
        self.instances.insert(instance, id.clone());
        let chosen = self.protocol.as_deref();
        let wanted = join.protocols.iter().find(|offered| Some(offered.name.as_str()) == chosen);
        let is_same = wanted.is_some_and(|offered| offered.metadata == member.metadata(chosen));
        let stays = self.state == State::Stable && is_same;
        let may_skip = join.may_skip_assignment;
        member.renew(cx, (!stays).then_some(ticket), join);
        self.members.insert(id.clone(), member);
        if !stays {
            self.prepare(cx);
            return;
        }
        let mut joined = self.joined(&id, led && may_skip);
        joined.skip_assignment = led && may_skip;
        if led && !may_skip {
            // A client that knows no skipping must not believe that it leads, or it would assign.
            holder.clone_into(&mut joined.leader);
        }
        let reply =
            Reply { ticket, done: Response::Join(Ok(joined)), failed: Response::Join(Err(GroupError::NotPersisted)) };
        self.save(cx, Some(reply));
    }

    /// The answer to a join.
    fn joined(&self, member: &str, with_roster: bool) -> Joined {
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_default(),
            leader: self.leader.clone().unwrap_or_default(),
            member: member.to_owned(),
            skip_assignment: false,
            members: if with_roster { self.roster() } else { Vec::new() },
        }
    }

    /// Everyone has to join again. Whoever waits for its part is told so; the others hear it with their next heartbeat.
    fn prepare(&mut self, cx: &mut Context<'_>) {
        let (initial, wait_ms) = match self.state {
            State::Preparing { .. } => return self.complete_if_all_joined(cx),
            State::Empty => {
                let delay_ms = cx.config.initial_delay_ms.min(self.rebalance_timeout_ms());
                let remaining_ms = self.rebalance_timeout_ms() - delay_ms;
                (Some(Initial { remaining_ms, has_grown: false }), delay_ms)
            }
            State::Completing { .. } | State::Stable => (None, self.rebalance_timeout_ms()),
        };
        for member in self.members.values_mut() {
            member.must_sync = false;
            member.answer_sync(cx, &GroupError::RebalanceInProgress);
        }
        self.state = State::Preparing { deadline: cx.now.plus(wait_ms), initial };
        if wait_ms == 0 {
            self.complete_join(cx);
        } else {
            self.complete_if_all_joined(cx);
        }
    }

    fn complete_if_all_joined(&mut self, cx: &mut Context<'_>) {
        let State::Preparing { initial, .. } = self.state else { return };
        let all_joined = self.promised.is_empty() && self.members.values().all(|member| member.joining.is_some());
        // The first rebalance waits its time out, unless there is nobody left to wait with.
        if all_joined && (initial.is_none() || self.members.is_empty()) {
            self.complete_join(cx);
        }
    }

    /// The wait for joins is over: the next generation, of those who came and of static members, who may be restarting.
    fn complete_join(&mut self, cx: &mut Context<'_>) {
        let gone: Vec<String> =
            self.members.iter().filter(|(_, member)| member.is_gone()).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.remove(cx, &id, &GroupError::UnknownMember);
        }
        if self.members.is_empty() {
            return self.become_empty(cx);
        }
        let has_joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let joined = self.members.iter().filter(|(_, member)| member.joining.is_some());
            let Some((first, _)) = joined.min_by_key(|(_, member)| member.sequence) else {
                // Only static members, none of them here: their sessions end this wait.
                let deadline = cx.now.plus(self.rebalance_timeout_ms());
                self.state = State::Preparing { deadline, initial: None };
                return;
            };
            self.leader = Some(first.clone());
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.choose_protocol();
        self.since = cx.wall;
        self.state = State::Completing { deadline: cx.now.plus(self.rebalance_timeout_ms()), write: None };
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id, self.is_leader(&id));
            let Some(member) = self.members.get_mut(&id) else { continue };
            if let Some(ticket) = member.joining.take() {
                member.must_sync = true;
                member.refresh(cx.now);
                cx.respond(ticket, Response::Join(Ok(joined)));
            }
        }
    }

    fn become_empty(&mut self, cx: &mut Context<'_>) {
        self.state = State::Empty;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = None;
        self.leader = None;
        self.since = cx.wall;
        self.save(cx, None);
    }

    /// Answers a member's part when it is known.
    pub fn sync(&mut self, cx: &mut Context<'_>, ticket: Ticket, sync: Sync) {
        if let Err(error) = self.try_sync(cx, ticket, sync) {
            cx.respond(ticket, Response::Sync(Err(error)));
        }
    }

    fn try_sync(&mut self, cx: &mut Context<'_>, ticket: Ticket, sync: Sync) -> Result<(), GroupError> {
        self.check_member(&sync.member, sync.instance.as_deref(), sync.generation)?;
        let type_fits = sync.protocol_type.as_ref().is_none_or(|told| *told == self.protocol_type);
        let protocol_fits = sync.protocol.is_none() || sync.protocol == self.protocol;
        if !type_fits || !protocol_fits {
            return Err(GroupError::InconsistentProtocol);
        }
        let leads = self.is_leader(&sync.member);
        let Some(member) = self.members.get_mut(&sync.member) else { return Err(GroupError::UnknownMember) };
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            State::Stable => {
                member.refresh(cx.now);
                let assignment = member.assignment.clone();
                cx.respond(ticket, Response::Sync(Ok(self.synced(assignment))));
                Ok(())
            }
            State::Completing { write, .. } => {
                member.must_sync = false;
                member.answer_sync(cx, &GroupError::RebalanceInProgress);
                member.syncing = Some(ticket);
                if leads && write.is_none() {
                    self.assign(cx, sync.assignments);
                }
                Ok(())
            }
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment,
        }
    }

    /// The leader's assignment, to be made durable before anyone acts on it.
    fn assign(&mut self, cx: &mut Context<'_>, assignments: Vec<Assignment>) {
        let total: usize = assignments.iter().map(|given| given.assignment.len()).sum();
        if total > GROUP_ASSIGNMENT_BYTES_MAX {
            let error = GroupError::TooLarge { what: "the assignment", max: GROUP_ASSIGNMENT_BYTES_MAX };
            return self.fail_assignment(cx, &error);
        }
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        for given in assignments {
            if let Some(member) = self.members.get_mut(&given.member) {
                member.assignment = given.assignment;
            }
        }
        let State::Completing { deadline, .. } = self.state else { return };
        match self.save(cx, None) {
            Some(id) => self.state = State::Completing { deadline, write: Some(id) },
            None => self.fail_assignment(cx, &GroupError::Busy { what: "writes", max: WRITES_MAX }),
        }
    }

    /// A write of this group's record has ended. If members wait for it, they get their parts, or start over.
    pub fn assignment_written(&mut self, cx: &mut Context<'_>, id: WriteId, is_durable: bool) {
        let State::Completing { write: Some(waited), .. } = self.state else { return };
        if waited != id {
            return;
        }
        if !is_durable {
            return self.fail_assignment(cx, &GroupError::NotPersisted);
        }
        self.state = State::Stable;
        self.since = cx.wall;
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone().unwrap_or_default());
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                member.refresh(cx.now);
                let assignment = member.assignment.clone();
                let synced = Synced { protocol_type: protocol_type.clone(), protocol: protocol.clone(), assignment };
                cx.respond(ticket, Response::Sync(Ok(synced)));
            }
        }
    }

    fn fail_assignment(&mut self, cx: &mut Context<'_>, error: &GroupError) {
        for member in self.members.values_mut() {
            member.answer_sync(cx, error);
        }
        self.prepare(cx);
    }

    /// Writes the group's record.
    fn save(&mut self, cx: &mut Context<'_>, reply: Option<Reply>) -> Option<WriteId> {
        let value = self.record(cx.wall).encode();
        let what = What::Group { group: self.id.clone(), record: value.clone() };
        let id = cx.persist(vec![Record { key: self.key(), value: Some(value) }], what, reply)?;
        self.writes_out += 1;
        Some(id)
    }

    /// A member is alive; it hears whether it has to join again.
    ///
    /// # Errors
    /// What the member has to do.
    pub fn heartbeat(
        &mut self,
        now: Tick,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        self.check_member(member, instance, generation)?;
        if let Some(member) = self.members.get_mut(member) {
            member.refresh(now);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            State::Completing { .. } | State::Stable => Ok(()),
        }
    }

    /// Members that go, each with its outcome.
    pub fn leave(&mut self, cx: &mut Context<'_>, leavers: &[Leaver]) -> Vec<Result<(), GroupError>> {
        let members = self.members.len();
        let outcomes = leavers.iter().map(|leaver| self.leave_one(cx, leaver)).collect();
        self.after_removal(cx, self.members.len() != members);
        outcomes
    }

    fn leave_one(&mut self, cx: &mut Context<'_>, leaver: &Leaver) -> Result<(), GroupError> {
        if leaver.instance.is_none() && self.promised.remove(&leaver.member).is_some() {
            return Ok(());
        }
        let member = match &leaver.instance {
            Some(instance) if leaver.member.is_empty() => {
                self.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)?
            }
            _ => leaver.member.clone(),
        };
        self.check_identity(&member, leaver.instance.as_deref())?;
        self.remove(cx, &member, &GroupError::UnknownMember);
        Ok(())
    }

    /// Takes a member out; the caller goes on with [`Self::after_removal`] or completes the join.
    fn remove(&mut self, cx: &mut Context<'_>, id: &str, error: &GroupError) {
        let Some(mut member) = self.members.remove(id) else { return };
        member.fail_waits(cx, error);
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = None;
        }
    }

    /// Members, or only promised ids, are gone.
    fn after_removal(&mut self, cx: &mut Context<'_>, are_members_gone: bool) {
        match self.state {
            State::Empty => {}
            State::Preparing { .. } => self.complete_if_all_joined(cx),
            State::Completing { .. } | State::Stable if are_members_gone => self.prepare(cx),
            State::Completing { .. } | State::Stable => {}
        }
    }

    /// When something here next runs out.
    pub fn next_deadline(&self) -> Option<Tick> {
        let sessions = self.members.values().filter(|member| !member.is_waiting()).map(|member| member.session_ends);
        let wait = match self.state {
            State::Preparing { deadline, .. } => Some(deadline),
            State::Completing { deadline, write: None } => Some(deadline),
            // The write has its own deadline.
            State::Completing { write: Some(_), .. } | State::Empty | State::Stable => None,
        };
        sessions.chain(self.promised.values().copied()).chain(wait).min()
    }

    /// Removes whoever is overdue, and ends waits that are.
    pub fn on_deadline(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        self.promised.retain(|_, until| *until > now);
        let is_over = |member: &Member| !member.is_waiting() && member.session_ends <= now;
        let mut gone: Vec<String> =
            self.members.iter().filter(|(_, member)| is_over(member)).map(|(id, _)| id.clone()).collect();
        if let State::Completing { deadline, write: None } = self.state
            && deadline <= now
        {
            gone.extend(self.members.iter().filter(|(_, member)| member.must_sync).map(|(id, _)| id.clone()));
        }
        for id in &gone {
            self.remove(cx, id, &GroupError::UnknownMember);
        }
        self.after_removal(cx, !gone.is_empty());
        match self.state {
            State::Preparing { deadline, initial } if deadline <= now => self.end_join_wait(cx, initial),
            // Nobody was missing and yet there is no assignment: start over rather than wait for ever.
            State::Completing { deadline, write: None } if deadline <= now => self.prepare(cx),
            _ => {}
        }
    }

    fn end_join_wait(&mut self, cx: &mut Context<'_>, initial: Option<Initial>) {
        if let Some(Initial { remaining_ms, has_grown: true }) = initial
            && remaining_ms > 0
        {
            let wait_ms = cx.config.initial_delay_ms.min(remaining_ms);
            let initial = Some(Initial { remaining_ms: remaining_ms - wait_ms, has_grown: false });
            self.state = State::Preparing { deadline: cx.now.plus(wait_ms), initial };
        } else {
            self.complete_join(cx);
        }
    }
}

impl Member {
    /// Has not joined again, and is not one that may be restarting.
    const fn is_gone(&self) -> bool {
        self.joining.is_none() && self.instance.is_none()
    }

    /// What it says now; an earlier join of its that still waits is told to try again.
    fn renew(&mut self, cx: &mut Context<'_>, ticket: Option<Ticket>, join: Join) {
        if let Some(earlier) = std::mem::replace(&mut self.joining, ticket) {
            cx.respond(earlier, Response::Join(Err(GroupError::RebalanceInProgress)));
        }
        self.client_id = join.client_id;
        self.client_host = join.client_host;
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.protocols = join.protocols;
        self.refresh(cx.now);
    }

    fn answer_sync(&mut self, cx: &mut Context<'_>, error: &GroupError) {
        if let Some(ticket) = self.syncing.take() {
            self.refresh(cx.now);
            cx.respond(ticket, Response::Sync(Err(error.clone())));
        }
    }

    fn fail_waits(&mut self, cx: &mut Context<'_>, error: &GroupError) {
        if let Some(ticket) = self.joining.take() {
            cx.respond(ticket, Response::Join(Err(error.clone())));
        }
        self.answer_sync(cx, error);
    }
}
