"""The facts themselves, as plain tables: entity on the left, its one short answer on the right.

Facts that people dispute, or that have two good answers, are left out. Only Python is imported here.
"""

from itertools import product


def table(text: str) -> dict[str, str]:
    """Facts from `entity: answer; entity: answer`."""
    rows = [row.split(": ") for row in " ".join(text.split()).split("; ")]
    return without_repetition([(entity, answer) for entity, answer in rows])


def groups(**entities_of: str) -> dict[str, str]:
    """Facts from `answer="entity, entity"`: the answer of many entities is written once."""
    pairs = [(e, answer.replace("_", " ")) for answer, es in entities_of.items() for e in es.split(", ")]
    return without_repetition(pairs)


def words(text: str) -> list[str]:
    """The words of a plain list."""
    return text.split()


def without_repetition(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The pairs as a dictionary, refusing an entity that stands there twice."""
    facts = dict(pairs)
    if len(facts) != len(pairs):
        raise ValueError(f"an entity stands twice in the facts that begin with {pairs[0]}")
    return facts


CAPITALS = table("""
Afghanistan: Kabul; Albania: Tirana; Algeria: Algiers; Angola: Luanda; Argentina: Buenos Aires;
Armenia: Yerevan; Australia: Canberra; Austria: Vienna; Azerbaijan: Baku; Bahrain: Manama;
Bangladesh: Dhaka; Barbados: Bridgetown; Belarus: Minsk; Belgium: Brussels; Belize: Belmopan;
Bhutan: Thimphu; Botswana: Gaborone; Brazil: Brasília; Bulgaria: Sofia; Burkina Faso: Ouagadougou;
Cambodia: Phnom Penh; Cameroon: Yaoundé; Canada: Ottawa; Cape Verde: Praia; Chad: N'Djamena;
Chile: Santiago; China: Beijing; Colombia: Bogotá; Costa Rica: San José; Croatia: Zagreb; Cuba: Havana;
Cyprus: Nicosia; Czechia: Prague; Denmark: Copenhagen; Dominica: Roseau; Ecuador: Quito; Egypt: Cairo;
El Salvador: San Salvador; Eritrea: Asmara; Estonia: Tallinn; Ethiopia: Addis Ababa; Fiji: Suva;
Finland: Helsinki; France: Paris; Gabon: Libreville; Georgia: Tbilisi; Germany: Berlin; Ghana: Accra;
Greece: Athens; Guinea: Conakry; Guyana: Georgetown; Haiti: Port-au-Prince; Honduras: Tegucigalpa;
Hungary: Budapest; Iceland: Reykjavik; India: New Delhi; Iran: Tehran; Iraq: Baghdad; Ireland: Dublin;
Italy: Rome; Jamaica: Kingston; Japan: Tokyo; Jordan: Amman; Kazakhstan: Astana; Kenya: Nairobi;
Kyrgyzstan: Bishkek; Laos: Vientiane; Latvia: Riga; Lebanon: Beirut; Lesotho: Maseru; Liberia: Monrovia;
Libya: Tripoli; Liechtenstein: Vaduz; Lithuania: Vilnius; Madagascar: Antananarivo; Malawi: Lilongwe;
Malaysia: Kuala Lumpur; Mali: Bamako; Malta: Valletta; Mauritania: Nouakchott; Mauritius: Port Louis;
Mexico: Mexico City; Moldova: Chișinău; Mongolia: Ulaanbaatar; Montenegro: Podgorica; Morocco: Rabat;
Mozambique: Maputo; Namibia: Windhoek; Nepal: Kathmandu; New Zealand: Wellington; Nicaragua: Managua;
Niger: Niamey; Nigeria: Abuja; North Korea: Pyongyang; North Macedonia: Skopje; Norway: Oslo;
Oman: Muscat; Pakistan: Islamabad; Paraguay: Asunción; Peru: Lima; Poland: Warsaw; Portugal: Lisbon;
Qatar: Doha; Romania: Bucharest; Russia: Moscow; Rwanda: Kigali; Samoa: Apia; Saudi Arabia: Riyadh;
Senegal: Dakar; Serbia: Belgrade; Sierra Leone: Freetown; Slovakia: Bratislava; Slovenia: Ljubljana;
Somalia: Mogadishu; South Korea: Seoul; South Sudan: Juba; Spain: Madrid; Sudan: Khartoum;
Suriname: Paramaribo; Sweden: Stockholm; Syria: Damascus; Tajikistan: Dushanbe; Tanzania: Dodoma;
Thailand: Bangkok; Togo: Lomé; Tunisia: Tunis; Turkey: Ankara; Turkmenistan: Ashgabat; Uganda: Kampala;
Ukraine: Kyiv; Uruguay: Montevideo; Uzbekistan: Tashkent; Vanuatu: Port Vila; Venezuela: Caracas;
Vietnam: Hanoi; Zambia: Lusaka; Zimbabwe: Harare
""")

# Countries that lie on two continents, or are counted differently by different people, are left out.
CONTINENTS = groups(
    Africa="Algeria, Angola, Botswana, Burkina Faso, Cameroon, Chad, Eritrea, Ethiopia, Gabon, Ghana, "
    "Guinea, Kenya, Lesotho, Liberia, Libya, Madagascar, Malawi, Mali, Mauritania, Morocco, Mozambique, "
    "Namibia, Niger, Nigeria, Rwanda, Senegal, Sierra Leone, Somalia, South Sudan, Sudan, Tanzania, "
    "Togo, Tunisia, Uganda, Zambia, Zimbabwe",
    Asia="Afghanistan, Bahrain, Bangladesh, Bhutan, Cambodia, China, India, Iran, Iraq, Japan, Jordan, "
    "Kyrgyzstan, Laos, Lebanon, Malaysia, Mongolia, Nepal, North Korea, Oman, Pakistan, Qatar, Saudi "
    "Arabia, South Korea, Syria, Tajikistan, Thailand, Turkmenistan, Uzbekistan, Vietnam",
    Europe="Albania, Austria, Belarus, Belgium, Bulgaria, Croatia, Czechia, Denmark, Estonia, Finland, "
    "France, Germany, Greece, Hungary, Iceland, Ireland, Italy, Latvia, Liechtenstein, Lithuania, Malta, "
    "Moldova, Montenegro, North Macedonia, Norway, Poland, Portugal, Romania, Serbia, Slovakia, "
    "Slovenia, Spain, Sweden, Ukraine",
    North_America="Barbados, Belize, Canada, Costa Rica, Cuba, Dominica, El Salvador, Haiti, Honduras, "
    "Jamaica, Mexico, Nicaragua",
    South_America="Argentina, Brazil, Chile, Colombia, Ecuador, Guyana, Paraguay, Peru, Suriname, "
    "Uruguay, Venezuela",
    Oceania="Australia, Fiji, New Zealand, Samoa, Vanuatu",
)

CURRENCIES = table("""
Japan: yen; China: yuan; India: Indian rupee; Sweden: Swedish krona; Norway: Norwegian krone;
Denmark: Danish krone; Poland: zloty; Czechia: Czech koruna; Hungary: forint; Romania: Romanian leu;
Iceland: Icelandic króna; Ukraine: hryvnia; Turkey: Turkish lira; Brazil: Brazilian real;
Mexico: Mexican peso; Argentina: Argentine peso; Chile: Chilean peso; Colombia: Colombian peso;
Peru: sol; Paraguay: guaraní; Uruguay: Uruguayan peso; Canada: Canadian dollar;
Australia: Australian dollar; South Korea: South Korean won; Thailand: baht; Vietnam: dong;
Malaysia: ringgit; Bangladesh: taka; Pakistan: Pakistani rupee; Nepal: Nepalese rupee; Mongolia: tugrik;
Kazakhstan: tenge; Georgia: lari; Armenia: dram; Azerbaijan: manat; Egypt: Egyptian pound;
Morocco: Moroccan dirham; Nigeria: naira; Ghana: cedi; Kenya: Kenyan shilling;
Tanzania: Tanzanian shilling; Uganda: Ugandan shilling; Ethiopia: birr; Zambia: Zambian kwacha;
Botswana: pula; Angola: kwanza; Iran: Iranian rial; Iraq: Iraqi dinar; Jordan: Jordanian dinar;
Saudi Arabia: Saudi riyal; Qatar: Qatari riyal; Albania: lek; Serbia: Serbian dinar; Honduras: lempira;
Cambodia: riel; Laos: kip; Bhutan: ngultrum; Mozambique: metical; Malawi: Malawian kwacha;
Madagascar: ariary; Haiti: gourde; Vanuatu: vatu; Samoa: tala; Algeria: Algerian dinar;
Tunisia: Tunisian dinar; Moldova: Moldovan leu; Tajikistan: somoni; Russia: Russian rouble;
Nicaragua: córdoba; Rwanda: Rwandan franc
""") | groups(
    euro="France, Germany, Spain, Italy, Portugal, Austria, Finland, Greece, Belgium, Ireland, Slovakia, "
    "Slovenia, Estonia, Latvia, Lithuania, Malta"
)

LANGUAGES = table("""
France: French; Germany: German; Austria: German; Liechtenstein: German; Italy: Italian; Greece: Greek;
Portugal: Portuguese; Brazil: Portuguese; Angola: Portuguese; Iran: Persian; Turkey: Turkish;
Russia: Russian; Poland: Polish; Hungary: Hungarian; Czechia: Czech; Slovakia: Slovak; Sweden: Swedish;
Norway: Norwegian; Denmark: Danish; Iceland: Icelandic; Thailand: Thai; Vietnam: Vietnamese;
Cambodia: Khmer; Laos: Lao; Mongolia: Mongolian; Romania: Romanian; Bulgaria: Bulgarian;
Ukraine: Ukrainian; Albania: Albanian; Estonia: Estonian; Latvia: Latvian; Lithuania: Lithuanian;
Slovenia: Slovene; Croatia: Croatian; Japan: Japanese; South Korea: Korean; Bangladesh: Bengali;
Armenia: Armenian; Georgia: Georgian; Spain: Spanish
""") | groups(
    Spanish="Argentina, Chile, Colombia, Costa Rica, Cuba, Ecuador, El Salvador, Honduras, Mexico, "
    "Nicaragua, Uruguay, Venezuela",
    Arabic="Egypt, Iraq, Jordan, Lebanon, Libya, Saudi Arabia, Syria, Tunisia",
)

CITIES = groups(
    France="Lyon, Marseille, Bordeaux, Toulouse, Strasbourg",
    Italy="Milan, Turin, Venice, Palermo, Bologna",
    Spain="Barcelona, Seville, Bilbao",
    Germany="Munich, Hamburg, Cologne, Dresden, Leipzig, Stuttgart",
    Belgium="Antwerp, Ghent",
    Austria="Salzburg, Graz, Innsbruck",
    Poland="Kraków, Gdańsk, Wrocław",
    Sweden="Gothenburg, Malmö, Uppsala",
    Norway="Bergen, Trondheim",
    Denmark="Aarhus, Odense",
    Finland="Tampere, Turku",
    Greece="Thessaloniki, Patras",
    Turkey="Istanbul, Izmir, Antalya",
    Russia="Vladivostok, Novosibirsk, Kazan",
    Ukraine="Odesa, Lviv, Kharkiv",
    Japan="Osaka, Kyoto, Nagoya, Hiroshima, Sapporo",
    China="Shanghai, Shenzhen, Guangzhou, Wuhan, Chengdu",
    South_Korea="Busan, Incheon",
    India="Mumbai, Kolkata, Chennai, Jaipur",
    Pakistan="Karachi, Lahore",
    Thailand="Chiang Mai, Phuket",
    Iran="Isfahan, Shiraz, Tabriz",
    Iraq="Basra, Mosul",
    Saudi_Arabia="Mecca, Medina, Jeddah",
    Egypt="Luxor, Aswan",
    Morocco="Casablanca, Marrakesh",
    Nigeria="Kano, Ibadan",
    Kenya="Mombasa, Kisumu",
    Canada="Toronto, Montreal, Calgary, Winnipeg",
    Mexico="Tijuana, Monterrey, Oaxaca",
    Brazil="São Paulo, Rio de Janeiro, Recife",
    Peru="Cusco, Arequipa",
    Ecuador="Guayaquil",
    Australia="Sydney, Melbourne, Brisbane, Adelaide",
    New_Zealand="Auckland, Christchurch, Dunedin",
    Romania="Timișoara, Cluj-Napoca",
    Bulgaria="Plovdiv, Varna",
    Croatia="Dubrovnik, Rijeka",
    Czechia="Brno, Ostrava",
    Hungary="Debrecen, Szeged",
    Syria="Aleppo, Homs",
    Uzbekistan="Samarkand, Bukhara",
    Ireland="Galway, Limerick",
)

ELEMENTS_IN_ORDER = words("""
hydrogen H helium He lithium Li beryllium Be boron B carbon C nitrogen N oxygen O fluorine F neon Ne
sodium Na magnesium Mg aluminium Al silicon Si phosphorus P sulfur S chlorine Cl argon Ar potassium K
calcium Ca scandium Sc titanium Ti vanadium V chromium Cr manganese Mn iron Fe cobalt Co nickel Ni
copper Cu zinc Zn gallium Ga germanium Ge arsenic As selenium Se bromine Br krypton Kr rubidium Rb
strontium Sr yttrium Y zirconium Zr niobium Nb molybdenum Mo technetium Tc ruthenium Ru rhodium Rh
palladium Pd silver Ag cadmium Cd indium In tin Sn antimony Sb tellurium Te iodine I xenon Xe caesium Cs
barium Ba lanthanum La cerium Ce praseodymium Pr neodymium Nd promethium Pm samarium Sm europium Eu
gadolinium Gd terbium Tb dysprosium Dy holmium Ho erbium Er thulium Tm ytterbium Yb lutetium Lu
hafnium Hf tantalum Ta tungsten W rhenium Re osmium Os iridium Ir platinum Pt gold Au mercury Hg
thallium Tl lead Pb bismuth Bi polonium Po astatine At radon Rn francium Fr radium Ra actinium Ac
thorium Th protactinium Pa uranium U
""")
SYMBOLS = dict(zip(ELEMENTS_IN_ORDER[::2], ELEMENTS_IN_ORDER[1::2], strict=True))
ATOMIC_NUMBERS = {element: str(number) for number, element in enumerate(list(SYMBOLS)[:60], start=1)}

YOUNG = groups(
    kitten="cat",
    puppy="dog",
    calf="cow, elephant, whale, giraffe, buffalo, hippopotamus, rhinoceros, camel, dolphin, moose, reindeer",
    foal="horse, donkey, zebra",
    lamb="sheep",
    kid="goat",
    piglet="pig",
    cub="lion, bear, tiger, leopard, panda, cheetah",
    fawn="deer",
    duckling="duck",
    gosling="goose",
    cygnet="swan",
    eaglet="eagle",
    owlet="owl",
    tadpole="frog, toad",
    joey="kangaroo, koala, wombat, wallaby",
    leveret="hare",
    elver="eel",
    caterpillar="butterfly, moth",
    pup="seal, bat, shark",
    squab="pigeon",
    spiderling="spider",
    poult="turkey",
    cria="llama, alpaca",
    maggot="fly",
    chick="chicken, penguin, ostrich, robin, gull",
    peachick="peacock",
)

ANIMAL_GROUPS = groups(
    mammal="cat, dog, cow, elephant, whale, giraffe, buffalo, hippopotamus, rhinoceros, camel, dolphin, "
    "horse, donkey, zebra, sheep, goat, pig, lion, bear, tiger, leopard, deer, kangaroo, koala, hare, "
    "seal, bat, llama, mouse, rabbit, squirrel, hedgehog, beaver, otter, badger, monkey, gorilla, wolf, "
    "fox, walrus, porpoise",
    bird="duck, swan, eagle, owl, pigeon, penguin, ostrich, robin, gull, parrot, sparrow, crow, raven, "
    "stork, heron, pelican, flamingo, woodpecker, vulture, falcon, magpie, albatross, emu, toucan, "
    "blackbird",
    fish="eel, shark, salmon, trout, tuna, cod, herring, carp, sardine, haddock, mackerel, sturgeon, "
    "seahorse, piranha, goldfish, halibut",
    reptile="crocodile, alligator, lizard, snake, tortoise, iguana, gecko, chameleon, cobra, viper, "
    "turtle, skink",
    amphibian="frog, toad, newt, salamander, axolotl",
    insect="butterfly, moth, fly, ant, bee, wasp, beetle, mosquito, grasshopper, dragonfly, ladybird, "
    "termite, locust, flea, cockroach, aphid, hornet",
    arachnid="spider, scorpion, tick, mite, tarantula",
)

OPPOSITES = table("""
hot: cold; cold: hot; tall: short; wide: narrow; narrow: wide; deep: shallow; shallow: deep; fast: slow;
slow: fast; high: low; low: high; early: late; late: early; rich: poor; poor: rich; strong: weak;
weak: strong; heavy: light; soft: hard; wet: dry; dry: wet; full: empty; empty: full; clean: dirty;
dirty: clean; young: old; new: old; happy: sad; sad: happy; loud: quiet; quiet: loud; thick: thin;
thin: thick; true: false; false: true; safe: dangerous; dangerous: safe; bright: dim; dim: bright;
sharp: blunt; blunt: sharp; rough: smooth; smooth: rough; tight: loose; loose: tight; alive: dead;
dead: alive; awake: asleep; asleep: awake; brave: cowardly; cowardly: brave; cheap: expensive;
expensive: cheap; guilty: innocent; innocent: guilty; public: private; private: public; ancient: modern;
modern: ancient; absent: present; present: absent; male: female; female: male; major: minor;
minor: major; inner: outer; outer: inner; positive: negative; negative: positive; polite: rude;
rude: polite; generous: stingy; stingy: generous; humble: proud; cruel: kind; wise: foolish;
foolish: wise; domestic: foreign; senior: junior; junior: senior; rural: urban; urban: rural;
vertical: horizontal; horizontal: vertical; temporary: permanent; permanent: temporary;
optimistic: pessimistic; pessimistic: optimistic; artificial: natural; rare: common; visible: invisible;
possible: impossible; legal: illegal; honest: dishonest; patient: impatient; regular: irregular;
certain: uncertain; complete: incomplete; mature: immature; logical: illogical; obedient: disobedient;
lucky: unlucky; fair: unfair; complex: simple; raw: cooked; northern: southern; southern: northern;
eastern: western; western: eastern
""")

PLURALS = table("""
child: children; man: men; woman: women; foot: feet; tooth: teeth; goose: geese; mouse: mice;
louse: lice; ox: oxen; person: people; knife: knives; wife: wives; life: lives; leaf: leaves;
loaf: loaves; half: halves; calf: calves; wolf: wolves; shelf: shelves; thief: thieves; elf: elves;
sheaf: sheaves; sheep: sheep; deer: deer; aircraft: aircraft; species: species; moose: moose;
crisis: crises; analysis: analyses; thesis: theses; oasis: oases; basis: bases; diagnosis: diagnoses;
hypothesis: hypotheses; parenthesis: parentheses; phenomenon: phenomena; criterion: criteria;
bacterium: bacteria; stimulus: stimuli; nucleus: nuclei; alumnus: alumni; larva: larvae; alga: algae;
tomato: tomatoes; potato: potatoes; hero: heroes; city: cities; baby: babies; lady: ladies;
policeman: policemen; fireman: firemen; snowman: snowmen; grandchild: grandchildren; axis: axes;
synthesis: syntheses; bookshelf: bookshelves; housewife: housewives; werewolf: werewolves;
dormouse: dormice; offspring: offspring
""")

PAST_TENSES = table("""
begin: began; break: broke; bring: brought; build: built; buy: bought; catch: caught; choose: chose;
come: came; cost: cost; cut: cut; dig: dug; draw: drew; drink: drank; drive: drove; eat: ate; fall: fell;
feed: fed; feel: felt; fight: fought; flee: fled; fling: flung; fly: flew; forget: forgot;
forgive: forgave; freeze: froze; grow: grew; hear: heard; hide: hid; hit: hit; hold: held; hurt: hurt;
keep: kept; lead: led; leave: left; lend: lent; let: let; lose: lost; meet: met; pay: paid; put: put;
ride: rode; ring: rang; rise: rose; run: ran; see: saw; sell: sold; send: sent; shake: shook;
shoot: shot; shrink: shrank; shut: shut; sing: sang; sink: sank; sit: sat; sleep: slept; slide: slid;
spend: spent; spin: spun; split: split; spread: spread; stand: stood; steal: stole; stick: stuck;
sting: stung; strike: struck; swear: swore; sweep: swept; swim: swam; swing: swung; take: took;
teach: taught; tear: tore; think: thought; throw: threw; understand: understood; wear: wore; weep: wept;
win: won; write: wrote; creep: crept; cling: clung; deal: dealt; grind: ground; overcome: overcame;
withdraw: withdrew; bend: bent; blow: blew; breed: bred; seek: sought; bite: bit; become: became
""")

FRENCH_WORDS = table("""
house: maison; tree: arbre; water: eau; bread: pain; milk: lait; cheese: fromage; butter: beurre;
egg: œuf; meat: viande; fish: poisson; apple: pomme; pear: poire; cherry: cerise; strawberry: fraise;
lemon: citron; grape: raisin; potato: pomme de terre; carrot: carotte; onion: oignon; garlic: ail;
salt: sel; sugar: sucre; honey: miel; wine: vin; beer: bière; coffee: café; tea: thé; knife: couteau;
fork: fourchette; spoon: cuillère; plate: assiette; bottle: bouteille; table: table; chair: chaise;
bed: lit; door: porte; window: fenêtre; wall: mur; roof: toit; kitchen: cuisine; garden: jardin;
street: rue; road: route; bridge: pont; town: ville; village: village; church: église; school: école;
hospital: hôpital; library: bibliothèque; book: livre; newspaper: journal; pencil: crayon; paper: papier;
letter: lettre; key: clé; car: voiture; train: train; boat: bateau; plane: avion; bicycle: vélo;
dog: chien; cat: chat; horse: cheval; cow: vache; sheep: mouton; goat: chèvre; hen: poule; duck: canard;
rabbit: lapin; mouse: souris; bird: oiseau; wolf: loup; fox: renard; bear: ours; bee: abeille;
ant: fourmi; spider: araignée; snake: serpent; frog: grenouille; flower: fleur; rose: rose; grass: herbe;
leaf: feuille; forest: forêt; mountain: montagne; lake: lac; sea: mer; beach: plage; island: île;
sky: ciel; sun: soleil; moon: lune; star: étoile; cloud: nuage; rain: pluie; snow: neige; wind: vent;
fire: feu; stone: pierre; gold: or; silver: argent; iron: fer; man: homme; child: enfant; boy: garçon;
father: père; mother: mère; brother: frère; sister: sœur; son: fils; king: roi; queen: reine;
friend: ami; head: tête; eye: œil; nose: nez; mouth: bouche; ear: oreille; hand: main; arm: bras;
leg: jambe; foot: pied; heart: cœur; blood: sang; shirt: chemise; dress: robe; shoe: chaussure;
hat: chapeau; red: rouge; black: noir; white: blanc; green: vert; blue: bleu; yellow: jaune; grey: gris;
day: jour; night: nuit; morning: matin; evening: soir; week: semaine; month: mois; summer: été;
winter: hiver; spring: printemps; autumn: automne; bag: sac; dream: rêve; dance: danse; peace: paix;
war: guerre; ship: navire; glass: verre
""")

AUTHORS = groups(
    William_Shakespeare="Hamlet, Macbeth, Othello, King Lear, Romeo and Juliet, The Tempest",
    Charles_Dickens="Oliver Twist, David Copperfield, Great Expectations, Bleak House, Hard Times",
    Jane_Austen="Pride and Prejudice, Emma, Persuasion, Mansfield Park, Sense and Sensibility",
    Leo_Tolstoy="War and Peace, Anna Karenina",
    Fyodor_Dostoevsky="Crime and Punishment, The Idiot, The Brothers Karamazov",
    Mark_Twain="Adventures of Huckleberry Finn, The Prince and the Pauper",
    George_Orwell="Animal Farm, Homage to Catalonia, Burmese Days",
    Herman_Melville="Moby-Dick",
    Mary_Shelley="Frankenstein",
    Bram_Stoker="Dracula",
    Charlotte_Brontë="Jane Eyre, Villette",
    Emily_Brontë="Wuthering Heights",
    Victor_Hugo="Les Misérables, Notre-Dame de Paris",
    Gustave_Flaubert="Madame Bovary, Salammbô",
    Albert_Camus="The Plague, The Stranger",
    Jules_Verne="Around the World in Eighty Days, Michael Strogoff",
    Miguel_de_Cervantes="Don Quixote",
    Dante_Alighieri="The Divine Comedy",
    Johann_Wolfgang_von_Goethe="Faust",
    Thomas_Mann="Buddenbrooks, The Magic Mountain, Death in Venice",
    Franz_Kafka="The Trial, The Castle, The Metamorphosis",
    James_Joyce="Ulysses, Dubliners, Finnegans Wake",
    Virginia_Woolf="Mrs Dalloway, To the Lighthouse, Orlando",
    Ernest_Hemingway="The Old Man and the Sea, A Farewell to Arms",
    John_Steinbeck="The Grapes of Wrath, Of Mice and Men, East of Eden",
    Harper_Lee="To Kill a Mockingbird",
    William_Golding="Lord of the Flies",
    Aldous_Huxley="Brave New World",
    Robert_Louis_Stevenson="Treasure Island, Kidnapped",
    Daniel_Defoe="Robinson Crusoe, Moll Flanders",
    Jonathan_Swift="Gulliver's Travels",
    Lewis_Carroll="Alice's Adventures in Wonderland",
    Oscar_Wilde="The Picture of Dorian Gray",
    Thomas_Hardy="Jude the Obscure, Far from the Madding Crowd",
    George_Eliot="Middlemarch, Silas Marner, Adam Bede",
    Joseph_Conrad="Heart of Darkness, Lord Jim, Nostromo",
    Gabriel_García_Márquez="One Hundred Years of Solitude",
    Umberto_Eco="The Name of the Rose",
    Boris_Pasternak="Doctor Zhivago",
    Henrik_Ibsen="A Doll's House, Peer Gynt, Hedda Gabler",
    Samuel_Beckett="Waiting for Godot, Endgame",
)

SUMS = {f"{left} plus {right}": str(left + right) for left in range(1, 13) for right in range(left, 13)}

MONTHS = words("January February March April May June July August September October November December")
NEXT_MONTHS = dict(zip(MONTHS, MONTHS[1:] + MONTHS[:1], strict=True))

PLANETS = table("""
Mercury: first; Venus: second; Earth: third; Mars: fourth; Jupiter: fifth; Saturn: sixth;
Uranus: seventh; Neptune: eighth
""")

# Shape: English noun -> (French noun, gender); English colour -> (masculine, feminine).
FRENCH_NOUNS = {
    "cat": ("chat", "m"),
    "dog": ("chien", "m"),
    "house": ("maison", "f"),
    "car": ("voiture", "f"),
    "book": ("livre", "m"),
    "door": ("porte", "f"),
    "flower": ("fleur", "f"),
    "bird": ("oiseau", "m"),
    "horse": ("cheval", "m"),
    "hat": ("chapeau", "m"),
    "shirt": ("chemise", "f"),
    "dress": ("robe", "f"),
    "boat": ("bateau", "m"),
    "chair": ("chaise", "f"),
    "bag": ("sac", "m"),
}
FRENCH_COLOURS = {
    "red": ("rouge", "rouge"),
    "black": ("noir", "noire"),
    "white": ("blanc", "blanche"),
    "green": ("vert", "verte"),
    "blue": ("bleu", "bleue"),
    "yellow": ("jaune", "jaune"),
    "grey": ("gris", "grise"),
}


def french_phrases() -> dict[str, str]:
    """`a black cat` -> `un chat noir`: the colour follows its noun and agrees with it."""
    facts = {}
    for (noun, (nom, gender)), (colour, forms) in product(FRENCH_NOUNS.items(), FRENCH_COLOURS.items()):
        article, couleur = ("un", forms[0]) if gender == "m" else ("une", forms[1])
        facts[f"a {colour} {noun}"] = f"{article} {nom} {couleur}"
    return facts


PEOPLE = words(
    "farmer teacher doctor sailor baker nurse singer soldier painter lawyer pilot waiter gardener butcher "
    "dentist plumber miner tailor judge priest actor clerk hunter guard"
)
ACTIONS = (
    "walked to the market",
    "walked along the coast",
    "slept in the barn",
    "slept on the sofa",
    "sang in the choir",
    "sang at the wedding",
    "waited at the station",
    "waited near the gate",
    "sat on the bench",
    "sat beside the fountain",
    "danced at the party",
    "danced in the hall",
    "worked in the office",
    "worked near the harbour",
    "swam in the pool",
    "laughed at the joke",
    "laughed during lunch",
    "stood by the fence",
    "rested under the blanket",
    "travelled to the coast",
)


def short_sentences() -> dict[str, str]:
    """`The nurse sat on the bench.` -> `The nurse sat.`: keep who and did what, drop the rest."""
    facts = {}
    for (row, action), (column, person) in product(enumerate(ACTIONS), enumerate(PEOPLE)):
        if (row + column) % 3 == 0:  # a third of all pairs, with every person and every action among them
            facts[f"The {person} {action}."] = f"The {person} {action.split()[0]}."
    return facts
