/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's view on maps that are plain memory files, handed out by a supervisor made by hand.
 */
#include "check.h"

#include <errno.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <supervisor_protocol.h>

#include "base/clock.h"
#include "observe/loader.h"
#include "observe/view.h"

#define PAGE  4096UL
#define CELLS 101U /* odd: half of the last value is nobody's */
#define SLOT  5U

/* What the programs would write. */
struct bed {
	int pair[2], fds[LOADER_FDS], heat_fd;
	struct policy *policy;
	struct observe_stats *stats;
	uint64_t *consumer, *producer;
	uint8_t *ring;
	uint32_t *heat;
	pthread_t supervisor;
	uint32_t generation;
	bool off;
	_Atomic unsigned unwatched; /* generation of the last unwatch */
	struct view *view;
};

static void *map_new(int *fd, size_t len)
{
	void *p;

	*fd = memfd_create("test", MFD_CLOEXEC);
	assert_true(*fd >= 0);
	assert_int_equal(ftruncate(*fd, (off_t)len), 0);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void reply_send(struct bed *b, struct supervisor_reply *r, const int *fds)
{
	char room[CMSG_SPACE(sizeof(int) * LOADER_FDS)] = {0};
	struct iovec iov = {.iov_base = r, .iov_len = sizeof(*r)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (r->nfds) {
		m.msg_control = room;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * r->nfds);
		CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(sizeof(int) * r->nfds);
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fds, sizeof(int) * r->nfds);
	}
	sendmsg(b->pair[1], &m, MSG_NOSIGNAL);
}

static void *supervisor(void *arg)
{
	struct supervisor_request q;
	struct bed *b = arg;

	while (recv(b->pair[1], &q, sizeof(q), 0) == sizeof(q)) {
		struct supervisor_reply r = {
			.magic = SUPERVISOR_MAGIC, .version = SUPERVISOR_VERSION, .id = q.id};

		if (q.op == SUPERVISOR_OBSERVER) {
			strcpy(r.text, b->off ? "off: not today" : "requests");
			r.code = b->off ? -ENOTSUP : 0;
			r.nfds = b->off ? 0 : LOADER_FDS;
			r.value[0] = OBSERVE_REQUESTS;
			reply_send(b, &r, b->fds);
		} else if (q.op == SUPERVISOR_WATCH) {
			if (strcmp(q.name, "full") == 0)
				r.code = -ENOSPC;
			r.nfds = !r.code;
			r.value[0] = SLOT;
			r.value[1] = 22;
			r.value[2] = CELLS;
			r.value[3] = b->generation;
			reply_send(b, &r, &b->heat_fd);
		} else {
			b->unwatched = (unsigned)q.value[0];
			reply_send(b, &r, NULL);
		}
	}
	return NULL;
}

static struct bed *bed_new(bool off)
{
	struct bed *b = calloc(1, sizeof(*b));
	uint8_t *ring;

	b->off = off;
	b->generation = 1;
	b->policy = map_new(&b->fds[0], POLICY_ENTRIES * sizeof(struct policy));
	b->stats = map_new(&b->fds[1],
			   OBSERVE_DEVICES * OBSERVE_STRIPES * sizeof(struct observe_stats));
	ring = map_new(&b->fds[2], 2 * PAGE + 2 * OBSERVE_RING_BYTES);
	b->consumer = (uint64_t *)ring;
	b->producer = (uint64_t *)(ring + PAGE);
	b->ring = ring + 2 * PAGE;
	b->heat = map_new(&b->heat_fd, (CELLS + 1) * sizeof(uint32_t));
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, b->pair), 0);
	assert_int_equal(pthread_create(&b->supervisor, NULL, supervisor, b), 0);
	b->view = view_start(b->pair[0]);
	assert_non_null(b->view);
	return b;
}

static int setup(void **state)
{
	struct bed *b = bed_new(false);

	assert_int_equal(view_add(b->view, "img", CELLS * 4ULL << 20), SLOT);
	*state = b;
	return 0;
}

static int setup_off(void **state)
{
	*state = bed_new(true);
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	view_stop(b->view);
	shutdown(b->pair[0], SHUT_RDWR);
	pthread_join(b->supervisor, NULL);
	munmap(b->policy, POLICY_ENTRIES * sizeof(struct policy));
	munmap(b->stats, OBSERVE_DEVICES * OBSERVE_STRIPES * sizeof(struct observe_stats));
	munmap(b->consumer, 2 * PAGE + 2 * OBSERVE_RING_BYTES);
	munmap(b->heat, (CELLS + 1) * sizeof(uint32_t));
	for (int i = 0; i < LOADER_FDS; i++)
		close(b->fds[i]);
	close(b->heat_fd);
	close(b->pair[0]);
	close(b->pair[1]);
	free(b);
	return 0;
}

static struct policy good_policy(void)
{
	return policy_sane((struct policy){0});
}

static uint32_t epoch_now(uint32_t half_life_ms)
{
	return heat_epoch(clock_now_ns(), half_life_ms);
}

static void produce(struct bed *b, const struct observe_window *w)
{
	uint32_t header[2] = {sizeof(*w), 0};
	uint64_t at = *b->producer % OBSERVE_RING_BYTES;

	memcpy(b->ring + at, header, sizeof(header));
	memcpy(b->ring + at + 8, w, sizeof(*w));
	__atomic_store_n(b->producer, *b->producer + 8 + sizeof(*w), __ATOMIC_RELEASE);
}

static void wait_records(struct bed *b, uint64_t n)
{
	struct view_ring ring = {0};

	for (int i = 0; i < 500 && ring.records < n; i++) {
		usleep(10000);
		view_ring(b->view, &ring);
	}
	assert_int_equal(ring.records, n);
}

static struct observe_window window_of(uint64_t ino, uint32_t windows)
{
	return (struct observe_window){.ino = ino,
				       .slot = SLOT,
				       .generation = 1,
				       .pid = 7,
				       .windows = windows,
				       .ns = clock_now_ns()};
}

/* ---- tests ---- */

static void the_figures_are_summed_over_the_stripes(void **state)
{
	struct bed *b = *state;
	struct view_device d;

	for (uint32_t i = 0; i < OBSERVE_STRIPES; i++) {
		b->stats[SLOT * OBSERVE_STRIPES + i].requests = i;
		b->stats[SLOT * OBSERVE_STRIPES + i].lost = 1;
		b->stats[(SLOT + 1) * OBSERVE_STRIPES + i].requests = 1000;
	}
	assert_int_equal(view_device(b->view, SLOT, &d), 0);
	assert_int_equal(d.stats.requests, OBSERVE_STRIPES * (OBSERVE_STRIPES - 1) / 2);
	assert_int_equal(d.stats.lost, OBSERVE_STRIPES);
	assert_int_equal(d.heat_shift, 22);
	assert_int_equal(d.cells, CELLS);
}

static void a_slot_that_is_not_watched_is_not_there(void **state)
{
	struct observe_window w;
	struct bed *b = *state;
	struct view_device d;
	struct policy p = good_policy();
	uint32_t heat;
	bool set;

	for (int slot = -2; slot < 2; slot++) {
		assert_int_equal(view_device(b->view, slot, &d), -ENOENT);
		assert_int_equal(view_heat(b->view, slot, 0, 1, &heat), -ENOENT);
		assert_int_equal(view_streams(b->view, slot, &w, 1), 0);
		assert_int_equal(view_policy(b->view, slot, &p, &set), -ENOENT);
		assert_int_equal(view_policy_set(b->view, slot, &p), -ENOENT);
	}
	assert_int_equal(view_device(b->view, OBSERVE_DEVICES, &d), -ENOENT);
	assert_int_equal(view_add(b->view, "full", 4096), -ENOSPC);
}

static void heat_is_told_as_of_now(void **state)
{
	struct bed *b = *state;
	uint32_t epoch = epoch_now(POLICY_HALF_LIFE_DEFAULT_MS), heat[CELLS];

	b->heat[0] = heat_add(0, epoch, 64);
	b->heat[CELLS - 1] = heat_add(0, epoch - 3, 64);
	assert_int_equal(view_heat(b->view, SLOT, 0, CELLS, heat), 0);
	assert_in_range(heat[0], 32, 64); /* a half-life may end meanwhile */
	assert_in_range(heat[CELLS - 1], 4, 8);
	assert_int_equal(heat[1], 0);
	assert_int_equal(view_heat(b->view, SLOT, CELLS, 0, heat), 0);
	assert_int_equal(view_heat(b->view, SLOT, CELLS, 1, heat), -ERANGE);
	assert_int_equal(view_heat(b->view, SLOT, 1, UINT32_MAX, heat), -ERANGE);
}

static void a_changed_half_life_keeps_the_heat(void **state)
{
	struct bed *b = *state;
	struct policy p = good_policy(), got;
	uint32_t heat[2];
	bool set;

	b->heat[1] = heat_add(0, epoch_now(p.half_life_ms), 1024);
	p.half_life_ms = 3600 * 1000;
	assert_int_equal(view_policy_set(b->view, SLOT, &p), 0);
	assert_int_equal(view_heat(b->view, SLOT, 0, 2, heat), 0);
	assert_in_range(heat[1], 512, 1024);
	assert_int_equal(heat_age(b->heat[1], epoch_now(p.half_life_ms)), 0);
	assert_int_equal(heat[0], 0);
	assert_int_equal(view_policy(b->view, SLOT, &got, &set), 0);
	assert_true(set);
	assert_int_equal(got.half_life_ms, 3600 * 1000);
	assert_int_equal(got.flags, POLICY_SET);
}

static void a_half_life_written_by_another_hand_keeps_the_heat_too(void **state)
{
	struct bed *b = *state;
	struct policy p = good_policy();
	uint32_t heat = 0;

	b->heat[1] = heat_add(0, epoch_now(p.half_life_ms), 1024);
	p.flags = POLICY_SET;
	p.half_life_ms = 1234567;
	b->policy[SLOT] = p;
	assert_int_equal(view_heat(b->view, SLOT, 1, 1, &heat), 0);
	assert_in_range(heat, 512, 1024);
}

static void nonsense_in_the_policy_is_shown_corrected(void **state)
{
	struct bed *b = *state;
	struct policy p;
	bool set;

	memset(&b->policy[SLOT], 0xff, sizeof(struct policy));
	assert_int_equal(view_policy(b->view, SLOT, &p, &set), 0);
	assert_true(set);
	assert_int_equal(p.half_life_ms, POLICY_HALF_LIFE_DEFAULT_MS);
	assert_int_equal(p.min_run, POLICY_MIN_RUN_DEFAULT);
	assert_int_equal(p.ring_sampling, POLICY_SAMPLING_DEFAULT);
	assert_int_equal(p.flags, POLICY_SET | POLICY_DISABLED);
	assert_int_equal(p.cgroup, 0);
	assert_int_equal(p.reserved[0] | p.reserved[1], 0);
}

static void what_is_out_of_range_is_not_set(void **state)
{
	struct bed *b = *state;
	struct policy p = good_policy();

	p.half_life_ms = POLICY_HALF_LIFE_MIN_MS - 1;
	assert_int_equal(view_policy_set(b->view, SLOT, &p), -ERANGE);
	p = good_policy();
	p.min_run = 0;
	assert_int_equal(view_policy_set(b->view, SLOT, &p), -ERANGE);
	assert_int_equal(view_cgroup_policy_set(b->view, 77, &p), -ERANGE);
	p = good_policy();
	p.ring_sampling = POLICY_SAMPLING_MAX + 1;
	assert_int_equal(view_policy_set(b->view, SLOT, &p), -ERANGE);
	p = good_policy();
	p.flags = 8;
	assert_int_equal(view_policy_set(b->view, SLOT, &p), -ERANGE);
	assert_int_equal(b->policy[SLOT].flags, 0);
}

static void cgroups_are_set_found_and_unset(void **state)
{
	struct bed *b = *state;
	struct policy p = good_policy(), got;
	bool set;

	p.min_run = 9;
	assert_int_equal(view_cgroup_policy_set(b->view, 4711, &p), 0);
	assert_int_equal(b->policy[POLICY_HEAD].cgroup, 1);
	assert_int_equal(view_cgroup_policy(b->view, 4711, &got, &set), 0);
	assert_true(set);
	assert_int_equal(got.min_run, 9);
	assert_int_equal(got.cgroup, 4711);
	assert_int_equal(view_cgroup_policy(b->view, 4712, &got, &set), 0);
	assert_false(set);
	assert_int_equal(got.min_run, POLICY_MIN_RUN_DEFAULT);
	assert_int_equal(view_cgroup_policy_unset(b->view, 4711), 0);
	assert_int_equal(view_cgroup_policy_unset(b->view, 4711), -ENOENT);
	assert_int_equal(b->policy[POLICY_HEAD].cgroup, 0);
	assert_int_equal(view_cgroup_policy(b->view, 4711, &got, &set), 0);
	assert_false(set);
}

static void a_full_cgroup_table_says_so_and_room_is_used_again(void **state)
{
	struct bed *b = *state;
	struct policy p = good_policy(), got;
	uint64_t id, refused = 0;
	bool set;

	for (id = 1; !refused && id <= OBSERVE_CGROUPS + 1; id++)
		if (view_cgroup_policy_set(b->view, id, &p))
			refused = id;
	assert_true(refused > 1);
	assert_int_equal(view_cgroup_policy_set(b->view, refused, &p), -ENOSPC);
	for (uint64_t i = 1; i < refused; i++) {
		assert_int_equal(view_cgroup_policy(b->view, i, &got, &set), 0);
		assert_true(set);
		assert_int_equal(view_cgroup_policy_unset(b->view, i), 0);
	}
	assert_int_equal(view_cgroup_policy_set(b->view, refused, &p), 0);
}

static void the_last_record_of_each_stream_is_told_the_newest_first(void **state)
{
	struct bed *b = *state;
	struct observe_window w = window_of(11, 1), got[4];

	produce(b, &w);
	w = window_of(12, 1);
	produce(b, &w);
	w = window_of(11, 2);
	memset(w.comm, 'x', sizeof(w.comm));
	produce(b, &w);
	wait_records(b, 3);
	assert_int_equal(view_streams(b->view, SLOT, got, 4), 2);
	assert_int_equal(got[0].ino, 11);
	assert_int_equal(got[0].windows, 2);
	assert_int_equal(strlen(got[0].comm), sizeof(got[0].comm) - 1);
	assert_int_equal(got[1].ino, 12);
	assert_int_equal(view_streams(b->view, SLOT, got, 1), 1);
	assert_int_equal(got[0].ino, 11);
	assert_int_equal(view_streams(b->view, SLOT, got, 0), 0);
}

static void records_of_a_device_that_is_gone_are_passed_over(void **state)
{
	struct bed *b = *state;
	struct observe_window w = window_of(11, 1), got;

	w.generation = 0;
	produce(b, &w);
	w = window_of(12, 1);
	w.slot = SLOT + 1;
	produce(b, &w);
	w.slot = UINT32_MAX;
	produce(b, &w);
	wait_records(b, 3);
	assert_int_equal(view_streams(b->view, SLOT, &got, 1), 0);
}

static void streams_silent_for_long_are_forgotten(void **state)
{
	struct bed *b = *state;
	struct observe_window w = window_of(11, 1), got;

	w.ns = 1;
	produce(b, &w);
	wait_records(b, 1);
	assert_int_equal(view_streams(b->view, SLOT, &got, 1), clock_now_ns() < 60 * NSEC_PER_SEC);
}

static void a_device_that_goes_takes_its_figures_but_not_what_was_lost(void **state)
{
	struct bed *b = *state;
	struct view_device d;
	struct view_ring ring;

	b->stats[SLOT * OBSERVE_STRIPES].lost = 3;
	view_remove(b->view, SLOT);
	assert_int_equal(b->unwatched, 1);
	assert_int_equal(view_device(b->view, SLOT, &d), -ENOENT);
	view_ring(b->view, &ring);
	assert_int_equal(ring.lost, 3);
	b->stats[SLOT * OBSERVE_STRIPES].lost = 1;
	b->generation = 2;
	assert_int_equal(view_add(b->view, "img", 4096), SLOT);
	assert_int_equal(view_add(b->view, "img", 4096), SLOT); /* twice is once */
	view_ring(b->view, &ring);
	assert_int_equal(ring.lost, 4);
}

static void without_bpf_every_call_says_so_and_why(void **state)
{
	struct bed *b = *state;
	struct observe_window w;
	struct view_device d;
	struct view_ring ring;
	struct policy p = good_policy();
	uint32_t hooks = 1, heat;
	bool set;

	assert_string_equal(view_hooks(b->view, &hooks), "off: not today");
	assert_int_equal(hooks, 0);
	assert_int_equal(view_add(b->view, "img", 4096), -ENOTSUP);
	assert_int_equal(view_device(b->view, 0, &d), -ENOTSUP);
	assert_int_equal(view_heat(b->view, 0, 0, 1, &heat), -ENOTSUP);
	assert_int_equal(view_policy(b->view, 0, &p, &set), -ENOTSUP);
	p = good_policy();
	assert_int_equal(view_policy_set(b->view, 0, &p), -ENOTSUP);
	assert_int_equal(view_cgroup_policy(b->view, 1, &p, &set), -ENOTSUP);
	p = good_policy();
	assert_int_equal(view_cgroup_policy_set(b->view, 1, &p), -ENOTSUP);
	assert_int_equal(view_cgroup_policy_unset(b->view, 1), -ENOTSUP);
	assert_int_equal(view_streams(b->view, 0, &w, 1), 0);
	view_ring(b->view, &ring);
	assert_int_equal(ring.records | ring.lost, 0);
	view_remove(b->view, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_figures_are_summed_over_the_stripes),
		T(a_slot_that_is_not_watched_is_not_there),
		T(heat_is_told_as_of_now),
		T(a_changed_half_life_keeps_the_heat),
		T(a_half_life_written_by_another_hand_keeps_the_heat_too),
		T(nonsense_in_the_policy_is_shown_corrected),
		T(what_is_out_of_range_is_not_set),
		T(cgroups_are_set_found_and_unset),
		T(a_full_cgroup_table_says_so_and_room_is_used_again),
		T(the_last_record_of_each_stream_is_told_the_newest_first),
		T(records_of_a_device_that_is_gone_are_passed_over),
		T(streams_silent_for_long_are_forgotten),
		T(a_device_that_goes_takes_its_figures_but_not_what_was_lost),
		cmocka_unit_test_setup_teardown(without_bpf_every_call_says_so_and_why, setup_off,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
