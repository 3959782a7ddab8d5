/* SPDX-License-Identifier: Apache-2.0 */
/* LD_PRELOAD: the wall clock of one program jumps. The file CAIRN_FAULTS_CLOCK names holds seconds,
 * which are added to CLOCK_REALTIME at each look at it; no clock else moves, as when somebody sets
 * a machine's time. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t offset(void)
{
	const char *path = getenv("CAIRN_FAULTS_CLOCK");
	FILE *f = path ? fopen(path, "re") : NULL;
	long long s = 0;

	if (f && fscanf(f, "%lld", &s) != 1)
		s = 0;
	if (f)
		fclose(f);
	return (time_t)s;
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int rc = (int)syscall(SYS_clock_gettime, clock, ts);

	if (!rc && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		ts->tv_sec += offset();
	return rc;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &ts);
	*tv = (struct timeval){ts.tv_sec, ts.tv_nsec / 1000};
	return 0;
}

time_t time(time_t *out)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (out)
		*out = ts.tv_sec;
	return ts.tv_sec;
}
