//! The proleptic Gregorian calendar, as day numbers that start on 2000-01-01 (PostgreSQL's epoch).

/// Microseconds in a day without leap seconds, as PostgreSQL counts.
pub const MICROS_PER_DAY: i64 = 86_400_000_000;

/// 0001-01-01 and 9999-12-31, the ends of most programs' calendars.
pub(super) const FIRST_DAY: i32 = -730_119;
pub(super) const LAST_DAY: i32 = 2_921_939;

/// Days from 0000-03-01, where the count below starts, to 2000-01-01.
const EPOCH_SHIFT: i64 = 730_425;
const DAYS_PER_ERA: i64 = 146_097;

/// The day number of a valid date, year 1 to 9999.
#[must_use]
pub fn days_from_civil(year: i32, month: u8, day: u8) -> i32 {
    // Years start in March here, so that the leap day comes last.
    let month = i64::from(month);
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * DAYS_PER_ERA + day_of_era - EPOCH_SHIFT).unwrap_or(i32::MAX)
}

/// Year, month and day of a day number.
#[must_use]
pub fn civil_from_days(days: i32) -> (i32, u8, u8) {
    let days = i64::from(days) + EPOCH_SHIFT;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // All three are in range by construction: days spans 12 million years at most.
    (year as i32, month as u8, day as u8)
}

/// The day lies in years 1 to 9999.
pub(super) fn holds_day(days: i32) -> bool {
    (FIRST_DAY..=LAST_DAY).contains(&days)
}

/// The microsecond lies in years 1 to 9999.
pub(super) fn holds_micros(micros: i64) -> bool {
    let days = micros.div_euclid(MICROS_PER_DAY);
    (i64::from(FIRST_DAY)..=i64::from(LAST_DAY)).contains(&days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (date, days) in [
            ((2000, 1, 1), 0),
            ((1999, 12, 31), -1),
            ((1970, 1, 1), -10_957),
            ((2000, 2, 29), 59),
            ((2000, 3, 1), 60),
            ((1900, 3, 1), -36_465),
            ((1, 1, 1), FIRST_DAY),
            ((9999, 12, 31), LAST_DAY),
        ] {
            assert_eq!(days_from_civil(date.0, date.1, date.2), days, "{date:?}");
            assert_eq!(civil_from_days(days), date);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let length = |year: i32, month: u8| match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1, 1, 1);
        for days in FIRST_DAY..=LAST_DAY {
            assert_eq!(civil_from_days(days), expected);
            assert_eq!(days_from_civil(expected.0, expected.1, expected.2), days);
            let (year, month, day) = expected;
            expected = if day < length(year, month) {
                (year, month, day + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
        }
    }
}
