/* SPDX-License-Identifier: Apache-2.0 */
#include "base/size.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* A non-negative decimal number; *ret_rest is what follows it. */
static int number(const char *s, double *ret, const char **ret_rest)
{
	if (!isdigit((unsigned char)*s))
		return -1;
	double v = 0, scale = 1;
	for (; isdigit((unsigned char)*s); s++)
		v = v * 10 + (*s - '0');
	if (*s == '.' && isdigit((unsigned char)s[1]))
		for (s++; isdigit((unsigned char)*s); s++)
			v += (*s - '0') * (scale /= 10);
	*ret = v;
	*ret_rest = s;
	return 0;
}

int size_parse(const char *s, uint64_t *ret_bytes, struct err *err)
{
	static const char units[] = "KMGT";
	double v;
	const char *rest;
	if (number(s, &v, &rest) < 0)
		goto bad;
	if (*rest == ' ')
		rest++;
	if (*rest && !(tolower((unsigned char)*rest) == 'b' && !rest[1])) {
		const char *u = memchr(units, toupper((unsigned char)*rest), 4);
		if (!u)
			goto bad;
		for (int i = 0; i <= u - units; i++)
			v *= 1024;
		rest++;
		if (*rest && strcasecmp(rest, "b") && strcasecmp(rest, "ib"))
			goto bad;
	}
	if (v >= 9.2e18)
		return err_set(err, ERANGE, "'%s': too large a size", s);
	*ret_bytes = (uint64_t)llround(v);
	return 0;
bad:
	return err_set(err, EINVAL, "'%s': not a size (such as 512M or 2G)", s);
}

void size_format(uint64_t bytes, char out[24])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t u = 0;
	while (v >= 1024 && u + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		u++;
	}
	snprintf(out, 24, u && v < 10 && v != floor(v) ? "%.1f %s" : "%.0f %s", v, units[u]);
}

int duration_parse(const char *s, uint64_t *ret_ms, struct err *err)
{
	static const struct {
		const char *unit;
		double ms;
	} units[] = {{"", 1000},  {"ms", 1},     {"s", 1000},
		     {"m", 60e3}, {"h", 3600e3}, {"d", 86400e3}};
	double v;
	const char *rest;
	if (number(s, &v, &rest) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(units); i++)
			if (strcmp(rest, units[i].unit) == 0) {
				if (v * units[i].ms >= 9e15)
					return err_set(err, ERANGE, "'%s': too long a time", s);
				*ret_ms = (uint64_t)llround(v * units[i].ms);
				return 0;
			}
	return err_set(err, EINVAL, "'%s': not a time (such as 30s, 5m or 2h)", s);
}

void duration_format(uint64_t ms, char out[24])
{
	uint64_t s = ms / 1000;
	if (s < 10)
		snprintf(out, 24, "%" PRIu64 ".%" PRIu64 "s", s, ms % 1000 / 100);
	else if (s < 60)
		snprintf(out, 24, "%" PRIu64 "s", s);
	else if (s < 3600)
		snprintf(out, 24, "%" PRIu64 "m%02" PRIu64 "s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, 24, "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s % 3600 / 60);
	else
		snprintf(out, 24, "%" PRIu64 "d%02" PRIu64 "h", s / 86400, s % 86400 / 3600);
}

int int_parse(const char *s, int64_t min, int64_t max, int64_t *ret, struct err *err)
{
	char *end;
	errno = 0;
	long long v = strtoll(s, &end, 10);
	bool starts = isdigit((unsigned char)*s) || (*s == '-' && min < 0);
	if (!starts || end == s || *end)
		return err_set(err, EINVAL, "'%s': not a whole number", s);
	if (errno || v < min || v > max)
		return err_set(err, ERANGE, "'%s': not within %" PRId64 "..%" PRId64, s, min, max);
	*ret = v;
	return 0;
}
