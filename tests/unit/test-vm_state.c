/* SPDX-License-Identifier: Apache-2.0 */
/* The states of a VM: every input in every state, against a picture drawn here by hand. */
#include "tap.h"
#include "vm/vm_state.h"

#define STATES 8
#define INPUTS 10

/* p s b r P > x !: planned starting booting ready Paused stopping stopped failed; '.': ignored. */
static const char letters[] = "psbrP>x!";
static const struct {
	enum vm_input in;
	const char *name, *row; /* what each state, in the order of `letters`, becomes */
} picture[INPUTS] = {
	/*                            p s b r P > x ! */
	{VM_IN_START, "start", "s.....ss"},     {VM_IN_RUNNING, "running", ".b......"},
	{VM_IN_HELLO, "hello", ".b.b...."},     {VM_IN_READY, "ready", ".rr....."},
	{VM_IN_PAUSED, "paused", "...P...."},   {VM_IN_RESUMED, "resumed", "....r..."},
	{VM_IN_STOP, "stop", "x>>>>..."},       {VM_IN_GONE, "gone", ".!!xxx.."},
	{VM_IN_CRASHED, "crashed", ".!!!!x.."}, {VM_IN_FAILED, "failed", "!!!!!x.."},
};

static void test_picture(void)
{
	for (int i = 0; i < INPUTS; i++) {
		char got[STATES + 1] = "";
		for (int s = 0; s < STATES; s++) {
			enum vm_state next;
			bool moves = vm_state_next((enum vm_state)s, picture[i].in, &next);
			got[s] = moves ? letters[next] : '.';
		}
		is_str(got, picture[i].row, "what '%s' does in each state", picture[i].name);
	}
}

static void test_names(void)
{
	static const char *const names[] = {"planned", "starting", "booting", "ready",
					    "paused",  "stopping", "stopped", "failed"};
	for (int s = 0; s < STATES; s++) {
		bool over = s == VM_STOPPED || s == VM_FAILED, planned = s == VM_PLANNED;
		is_str(vm_state_name((enum vm_state)s), names[s], "state %d has its name", s);
		ok(vm_state_is_over((enum vm_state)s) == over, "%s: over or not", names[s]);
		ok(vm_state_is_live((enum vm_state)s) == (!over && !planned), "%s: live or not",
		   names[s]);
	}
	is_str(vm_state_name((enum vm_state)99), "unknown", "a number that is no state");
}

int main(void)
{
	test_picture();
	test_names();
	return done();
}
