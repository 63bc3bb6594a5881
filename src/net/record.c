/* SPDX-License-Identifier: Apache-2.0 */
#include "net/record.h"

#include "net/bytes.h"

enum record record_read(const uint8_t *p, size_t have, size_t *ret_len)
{
	if (have < RECORD_WORD)
		return RECORD_PART;
	size_t len = get_be32(p);
	if (len && (len < FRAME_HEADER || len > FRAME_MAX))
		return RECORD_BAD;
	if (have - RECORD_WORD < len)
		return RECORD_PART;
	*ret_len = len;
	return len ? RECORD_FRAME : RECORD_GO;
}

enum crossing record_judge(const struct members *all, const uint32_t *places, uint32_t from,
			   uint32_t self, const uint8_t *frame, size_t len, uint32_t *ret_rank)
{
	uint32_t source;
	struct member member;
	struct filtered f;
	if (!address_mac_rank(frame + 6, &source) || source >= all->size || places[source] != from)
		return CROSSING_SPOOF;
	member_init(&member, all, source);
	/* The switch over there has done the same; but who owns a node must not speak for the VMs of others. */
	if (filter_frame(all, &member, frame, len, &f) != VERDICT_FORWARD)
		return CROSSING_SPOOF;
	if (places[f.rank] != self)
		return CROSSING_STRAYED;
	*ret_rank = f.rank;
	return CROSSING_DELIVER;
}
