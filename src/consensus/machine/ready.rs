//! From raft-rs's Ready to effects: what may go now, what waits for the disk, and what that releases.
//!
//! raft-rs's own order is: the leader's messages at once; entries, hard state and snapshot to the disk; then everybody
//! else's messages; then what the disk's progress commits. `RawNode::on_persist_ready` allows several Readies to be on
//! their way to the disk; [`Pending`] is that queue.

use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, HardState, Message, MessageType};

use super::{Committed, Effects, Machine, Outgoing, Write};

/// A Ready whose write, or one before it, is not durable yet.
#[derive(Debug)]
pub(super) struct Pending {
    number: u64,
    /// What the disk holds once it is written; `None`: nothing of its own to write.
    pub(super) write: Option<HardState>,
    send: Vec<Outgoing>,
    /// A change of the membership, and what follows it: waits for the disk.
    pub(super) committed: Vec<Entry>,
    pub(super) snapshot: Option<(u64, Vec<u8>)>,
}

impl Machine {
    /// What to do now, `None` when there is nothing.
    pub fn poll(&mut self) -> Option<Effects> {
        while self.raw.has_ready() {
            self.absorb();
        }
        let out = std::mem::take(&mut self.out);
        (out != Effects::default()).then_some(out)
    }

    /// Every write up to this number is durable.
    pub fn handle_written(&mut self, number: u64) {
        self.release(|next| next.write.is_none() || next.number <= number);
    }

    /// Puts the commit index into a write of its own, if the disk does not have it: before a stop.
    pub fn save_commit(&mut self) {
        let hard_state = self.raw.raft.hard_state();
        if !self.pending.is_empty() || self.raw.has_ready() || self.durable == hard_state {
            return;
        }
        let number = self.last_number;
        self.out.writes.push(Write { number, snapshot: None, entries: Vec::new(), hard_state: hard_state.clone() });
        let write = Some(hard_state);
        self.pending.push_back(Pending { number, write, send: Vec::new(), committed: Vec::new(), snapshot: None });
    }

    /// Takes one Ready apart.
    fn absorb(&mut self) {
        // A lone voter leads without asking anybody: its term must be durable before a learner hears of it, or it could
        // lead the same term twice with different entries.
        let vote_waits = (self.durable.term, self.durable.vote) != (self.raw.raft.term, self.raw.raft.vote);
        let mut ready = self.raw.ready();
        let number = ready.number();
        self.last_number = number;
        self.out.reads.extend(ready.take_read_states().into_iter().map(|read| (read.request_ctx, read.index)));
        let mut send = outgoing(ready.take_messages());
        if !vote_waits {
            self.out.send.append(&mut send);
        }
        send.extend(outgoing(ready.take_persisted_messages()));
        let committed = ready.take_committed_entries();
        let entries = ready.take_entries();
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());

        // raft reads what is on its way to the disk from the store.
        if let Some(snapshot) = &snapshot {
            self.raw.mut_store().install(snapshot.get_metadata().clone());
        }
        self.raw.mut_store().append(&entries);
        self.raw.advance_append_async(ready);

        // A membership takes effect only once the disk knows that it is committed: a node that restarts must never
        // vote or campaign by a configuration it has already left behind.
        let members_up_to = committed.iter().rfind(|entry| is_conf_change(entry)).map_or(0, |entry| entry.index);
        let holds_committed =
            members_up_to > self.durable.commit || self.pending.iter().any(|pending| !pending.committed.is_empty());
        let hard_state = self.raw.raft.hard_state();
        let newest = self.pending.iter().rev().find_map(|pending| pending.write.as_ref()).unwrap_or(&self.durable);
        let writes = (newest.term, newest.vote) != (hard_state.term, hard_state.vote)
            || !entries.is_empty()
            || snapshot.is_some()
            || members_up_to > newest.commit;

        let (committed, held) = if holds_committed { (Vec::new(), committed) } else { (committed, Vec::new()) };
        let snapshot = snapshot.map(|mut whole| (whole.take_metadata(), whole.take_data().to_vec()));
        self.pending.push_back(Pending {
            number,
            write: writes.then(|| hard_state.clone()),
            send,
            committed: held,
            snapshot: snapshot.as_ref().map(|(meta, data)| (meta.index, data.clone())),
        });
        if writes {
            self.out.writes.push(Write { number, snapshot, entries, hard_state });
        }
        self.deliver(committed);
        self.release(|next| next.write.is_none());
    }

    fn release(&mut self, is_done: impl Fn(&Pending) -> bool) {
        while let Some(done) = self.pending.pop_front_if(|next| is_done(next)) {
            self.raw.on_persist_ready(done.number);
            if let Some(hard_state) = done.write {
                self.durable = hard_state;
            }
            self.out.send.extend(done.send);
            if let Some((index, data)) = done.snapshot {
                self.delivered = index;
                self.conf_state = self.raw.raft.prs().conf().to_conf_state();
                self.raw.advance_apply_to(index);
                self.out.committed.push(Committed::Snapshot { index, data });
            }
            self.deliver(done.committed);
        }
    }

    fn deliver(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else { return };
        for entry in entries {
            assert_eq!(entry.index, self.delivered + 1, "raft delivers without a gap");
            self.delivered = entry.index;
            let committed = match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => Committed::Blank { index: entry.index },
                EntryType::EntryNormal => Committed::Entry { index: entry.index, data: entry.data },
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => self.change_members(entry),
            };
            self.out.committed.push(committed);
        }
        self.raw.advance_apply_to(last);
    }

    fn change_members(&mut self, entry: Entry) -> Committed {
        let mut change = ConfChangeV2::default();
        let applied = change
            .merge_from_bytes(&entry.data)
            .map_err(|error| error.to_string())
            .and_then(|()| self.raw.apply_conf_change(&change).map_err(|error| error.to_string()));
        match applied {
            Ok(conf_state) => {
                self.conf_state = conf_state;
                self.step_down_if_out();
                Committed::Membership { index: entry.index, context: entry.context }
            }
            // The same on every log holder, since all have the same configuration here.
            Err(error) => {
                tracing::warn!(index = entry.index, error, "a membership change that cannot be applied was skipped");
                Committed::Blank { index: entry.index }
            }
        }
    }
}

impl Machine {
    /// A leader that votes no more leaves the lead to those that do. raft-rs would let it go on, and aborts at its next write
    /// where it is no member at all.
    fn step_down_if_out(&mut self) {
        let id = self.id();
        let votes = [&self.conf_state.voters, &self.conf_state.voters_outgoing].iter().any(|ids| ids.contains(&id));
        if self.leads() && !votes {
            let term = self.term();
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }
}

fn outgoing(messages: Vec<Message>) -> Vec<Outgoing> {
    let outgoing = |message: Message| {
        let bytes = message.write_to_bytes().expect("a message in memory can be written");
        match message.get_msg_type() {
            MessageType::MsgSnapshot => {
                Outgoing::Snapshot { to: message.to, index: message.get_snapshot().get_metadata().index, bytes }
            }
            _ => Outgoing::Message { to: message.to, bytes },
        }
    };
    messages.into_iter().map(outgoing).collect()
}

fn is_conf_change(entry: &Entry) -> bool {
    entry.get_entry_type() != EntryType::EntryNormal
}
