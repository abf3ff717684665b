package slack

import "regexp"

// emojiNames are the ones that an incident card is likely to use; others are shown by their name.
var emojiNames = map[string]string{
	"adhesive_bandage": "🩹", "alarm_clock": "⏰", "arrow_right": "➡️", "arrows_counterclockwise": "🔄", "ballot_box_with_check": "☑️",
	"bell": "🔔", "black_circle": "⚫", "boom": "💥", "bug": "🐛", "bulb": "💡", "chart_with_downwards_trend": "📉",
	"chart_with_upwards_trend": "📈", "clipboard": "📋", "closed_lock_with_key": "🔐", "cloud": "☁️", "construction": "🚧",
	"drop_of_blood": "🩸", "exclamation": "❗", "eyes": "👀", "fire": "🔥", "globe_with_meridians": "🌐", "hammer_and_wrench": "🛠️",
	"heavy_check_mark": "✔️", "heavy_dollar_sign": "💲", "hourglass": "⌛", "hourglass_flowing_sand": "⏳", "information_source": "ℹ️",
	"key": "🔑", "large_blue_circle": "🔵", "large_green_circle": "🟢", "large_orange_circle": "🟠", "large_yellow_circle": "🟡",
	"link": "🔗", "lock": "🔒", "mag": "🔍", "money_with_wings": "💸", "moneybag": "💰", "no_entry": "⛔", "no_entry_sign": "🚫",
	"octagonal_sign": "🛑", "package": "📦", "pushpin": "📌", "question": "❓", "red_circle": "🔴", "repeat": "🔁", "robot_face": "🤖",
	"rotating_light": "🚨", "scissors": "✂️", "scroll": "📜", "shield": "🛡️", "snowflake": "❄️", "speech_balloon": "💬", "stopwatch": "⏱️",
	"timer_clock": "⏲️", "unlock": "🔓", "warning": "⚠️", "white_check_mark": "✅", "white_circle": "⚪", "wrench": "🔧", "x": "❌", "zap": "⚡",
}

var emojiName = regexp.MustCompile(`:([a-z0-9_+-]+):`)

// emojis splits a text at the emoji names we know; an unknown name stays text.
func emojis(text string) []Span {
	var out []Span
	from := 0
	for _, at := range emojiName.FindAllStringSubmatchIndex(text, -1) {
		name := text[at[2]:at[3]]
		sign, known := emojiNames[name]
		if !known {
			continue
		}
		out = append(out, Span{Kind: Text, Text: text[from:at[0]]}, Span{Kind: Emoji, Text: sign, Name: name})
		from = at[1]
	}
	return append(out, Span{Kind: Text, Text: text[from:]})
}
