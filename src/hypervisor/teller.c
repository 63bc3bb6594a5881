/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/teller.h"

void hv_enter(struct hv_teller *t, struct hv_hold *h)
{
	*h = (struct hv_hold){.outer = t->released};
	t->released = &h->dead;
}

bool hv_leave(struct hv_teller *t, struct hv_hold *h)
{
	if (!h->dead)
		t->released = h->outer;
	else if (h->outer)
		*h->outer = true;
	return !h->dead;
}

bool hv_tell(struct hv_teller *t, const struct hv_event *e)
{
	struct hv_hold h;
	t->state = e->state;
	hv_enter(t, &h);
	t->fn(t->arg, e);
	return hv_leave(t, &h);
}

bool hv_tell_state(struct hv_teller *t, enum hv_state state, const char *reason)
{
	return hv_tell(t, &(struct hv_event){
				  .type = HV_EVENT_STATE, .state = state, .fd = -1, .reason = reason});
}

bool hv_tell_fd(struct hv_teller *t, enum hv_event_type type, int *fd)
{
	if (*fd < 0)
		return true;
	return hv_tell(t, &(struct hv_event){.type = type, .state = t->state, .fd = TAKE_FD(*fd)});
}

bool hv_tell_failed(struct hv_teller *t, const char *op, const struct err *err)
{
	return hv_tell(t, &(struct hv_event){.type = HV_EVENT_FAILED,
					     .state = t->state,
					     .fd = -1,
					     .op = op,
					     .err = err});
}

void hv_teller_release(struct hv_teller *t)
{
	if (t->released)
		*t->released = true;
}
