"""Common verbs by their past tense, for questions with "did"."""

_REGULAR = """
abandon accept achieve acquire adapt add adopt air allow announce appear apply appoint arrive attach attack
attempt attend award base believe call capture carry cause cease change claim collaborate compete complete
compose conclude construct consist contain continue contribute convert cover create damage debut decide
declare decline defeat define deliver design destroy develop die direct discontinue discover dismiss divide
earn edit elect eliminate emigrate employ encourage end enjoy enter escape establish execute exist expand
express extend face fail feature fill finish fire fix follow force form found gain graduate handle happen help
hire host identify improve include increase influence inherit inspire introduce invade invent invite issue
join kill land last launch like live locate look maintain manage marry mention merge move name need obtain
occupy offer open operate oppose organize originate participate pass peak perform persuade pick place play
portray practice premiere present produce promote propose provide publish purchase push raise reach receive
record reduce refuse reject release remain remove rename replace report represent request require resign
retain retire return reveal rule score select serve share sign sink specialize star start state stay study
succeed suffer suggest support surrender survive terminate tour train transform travel treat try turn use
visit want work
cancel control drop occur permit plan prefer refer stop transfer
"""
_IRREGULAR = """
became:become began:begin broke:break brought:bring built:build bought:buy came:come chose:choose did:do drew:draw
drove:drive ate:eat fell:fall felt:feel fought:fight flew:fly forgot:forget got:get gave:give went:go grew:grow had:have
heard:hear held:hold kept:keep knew:know laid:lay led:lead left:leave lost:lose made:make met:meet paid:pay ran:run
rose:rise said:say saw:see sold:sell sent:send shot:shoot sang:sing sat:sit spoke:speak spent:spend stood:stand
took:take taught:teach told:tell thought:think threw:throw understood:understand won:win wore:wear wrote:write
"""
_DOUBLED = {"cancel", "control", "drop", "occur", "permit", "plan", "prefer", "refer", "stop", "transfer", "star"}


def _past(verb: str) -> str:
    if verb in _DOUBLED:
        return f"{verb}{verb[-1]}ed"
    if verb.endswith("e"):
        return f"{verb}d"
    return f"{verb[:-1]}ied" if verb[-1] == "y" and verb[-2] not in "aeiou" else f"{verb}ed"


BASE_FORM = {_past(verb): verb for verb in _REGULAR.split()} | dict(pair.split(":") for pair in _IRREGULAR.split())
